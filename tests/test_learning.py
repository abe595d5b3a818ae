"""Real learning on real images: the default recipe to its floor, and the classic one along its known first steps."""

import json

import pytest

from conftest import thumbnet
from thumbnet import training
from thumbnet.data.datasets import load_dataset
from thumbnet.machine import Machine
from thumbnet.recipes import recipe
from thumbnet.signals import StopRequested
from thumbnet.training import train

FLOOR = 0.88  # of 600 validation images of fashion-mini; five seeds reached 0.887 to 0.903


def test_the_default_recipe_reaches_its_floor_on_fashion_mini(tmp_path):
    result = thumbnet("train", "fashion-mini", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["validation_accuracy"] >= FLOOR


# Steps of batch 64 with seed 0, and the band for the mean loss of their last third. Chance is ln 10 = 2.303; the first
# ten steps mean 13.7, and the loss stays above chance for some two hundred steps, as Adam's first large steps are undone.
COURSE = {"fp32": (60, 2.6, 3.4), "auto": (300, 1.6, 2.2)}


@pytest.mark.parametrize("precision", COURSE)
def test_the_classic_recipe_learns_real_cifar10_along_its_known_course(cifar_folder, tmp_path, monkeypatch, precision):
    steps, low, high = COURSE[precision]
    losses = []

    def count(self, loss, logits, labels, keep=training.Position.count):
        losses.append(loss.item())
        keep(self, loss, logits, labels)
        if len(losses) == steps:
            raise StopRequested("the test")

    monkeypatch.setattr(training.Position, "count", count)
    data = load_dataset("cifar10", data_dir=cifar_folder)
    with pytest.raises(training.Interrupted):
        train(recipe("cifar10-classic"), data, tmp_path / "run", machine=Machine(device="cpu", precision=precision))
    late = losses[-steps // 3 :]
    mean = sum(late) / len(late)
    print(f"{precision}: mean loss of the last {len(late)} of {steps} steps {mean:.4f}")
    assert low < mean < high
    assert mean < sum(losses[:10]) / 10 / 2
