"""Numbers that do not lie: same seed same bits, every image once, classes by name, nothing that is not finite kept."""

import copy
import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from conftest import CPU
from promises import FULL, count, held
from thumbnet.backend import prepare
from thumbnet.data.batches import Split, whole
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import TrainingFailed, UserError
from thumbnet.judging.evaluation import predict_logits, score
from thumbnet.randomness import generator, seed_of
from thumbnet.recipes import vary
from thumbnet.recipes.network import build_model
from thumbnet.runs.checkpoints import load_checkpoint
from thumbnet.runs.run import Run
from thumbnet.training import loop, step, workshop
from thumbnet.training.loop import train

OFTEN = replace(CPU, checkpoint_seconds=0)


# ------------------------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bits_and_others_give_others(tiny, quick, tmp_path):
    short = vary(quick, epochs=1)
    hashes = {}
    for seed, again in itertools.product(range(count(3, 5)), (0, 1)):
        run = train(vary(short, seed=seed), tiny, tmp_path / f"{seed}-{again}", machine=CPU, plots=False)
        hashes.setdefault(seed, set()).add((run.path / "model.safetensors").read_bytes())
        assert run.environment["threads"] == 1
    assert all(len(found) == 1 for found in hashes.values())
    assert len({content for found in hashes.values() for content in found}) == len(hashes)
    held("T17", "one seed gives the same bits again, each other seed gives others; the threads are written down",
         2 * len(hashes), f"{len(hashes)} seeds, two runs each")  # fmt: skip


def test_no_draw_is_repeated_between_seeds_epochs_steps_or_purposes():
    keys = list(itertools.product(range(5), ("augment", "dropout", "order", "weights"), range(30), range(20)))
    assert len({seed_of(*key) for key in keys}) == len(keys)
    draws = {torch.rand(4, generator=generator("cpu", *key)).numpy().tobytes() for key in keys[:: count(7, 1)]}
    assert len(draws) == len(keys[:: count(7, 1)])
    held("T17", "no random draw repeats between seeds, purposes, epochs and steps", len(draws), "draws, all different")


# ------------------------------------------------------------------------------------- evaluation


class Sums(torch.nn.Module):
    """Logits that depend on every pixel of the image alone, as exact as floats of whole numbers are."""

    def forward(self, x):
        total = (x * 255).round().sum(dim=(1, 2, 3))
        return torch.stack([(total % divisor) / divisor for divisor in (3, 5, 7, 11)], dim=1)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16, 61])
def test_evaluation_is_exact_for_every_number_of_images_and_every_batch(batch, monkeypatch):
    monkeypatch.setattr("thumbnet.judging.evaluation.PIXELS_AT_ONCE", 25 * batch)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (67, 1, 5, 5), dtype=np.uint8))
    labels = torch.arange(67) % 4
    classes, cases, backend = ("a", "b", "c", "d"), 0, prepare(CPU)
    for number in range(1, 68):
        split = whole(images[:number], labels[:number])
        logits = predict_logits(Sums(), split, backend)
        scores = score(logits, split.labels, classes, split="validation")
        right = loss = 0.0
        for image, label in zip(images[:number], labels[:number].tolist(), strict=True):
            alone = Sums()(image[None].float() / 255)[0]
            right += int(alone.argmax()) == label
            loss -= F.log_softmax(alone.double(), 0)[label].item()
        assert scores.accuracy == right / number
        assert math.isclose(scores.loss, loss / number, rel_tol=1e-6)
        assert scores.images == number == int(np.sum(scores.confusion))
        cases += 1
    held(
        "T18",
        "evaluation counts every image once: equal to a count one by one",
        cases,
        f"1 to 67 images, batch {batch}",
    )


def test_a_split_of_chosen_rows_is_measured_in_its_own_order():
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    rows = torch.tensor([5, 0, 19, 7])
    logits = predict_logits(Sums(), Split(images, torch.zeros(20, dtype=torch.long), rows), prepare(CPU))
    assert logits[:, 3].tolist() == pytest.approx([(row % 11) / 11 for row in rows.tolist()])


# ------------------------------------------------------------------------------------- classes

NAMES = {
    "letters": ["cat", "dog", "emu"],
    "numbers": ["1", "10", "2", "100"],
    "capitals": ["Zebra", "ant", "Bee"],
    "accents": ["éclair", "zebra", "ähre", "日本"],
    "spaces and signs": ["a b", "a-b", "a_b", "a.b", "<img src=x onerror=alert(1)>"],
}
SHAPES = ("train alone", "class folders alone", "with test", "test made first", "test without a class")


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_are_those_of_the_folders_by_name_in_every_layout(tmp_path, names, shape):
    classes = NAMES[names]
    colours = {name: 30 + 40 * index for index, name in enumerate(classes)}
    parts = {"train alone": ["train"], "class folders alone": [""], "test made first": ["test", "train"]}
    for part in parts.get(shape, ["train", "test"]):
        for name in reversed(classes) if part == "test" else classes:
            if part == "test" and shape == "test without a class" and name == classes[1]:
                continue
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (colours[name], 0, 0)).save(tmp_path / part / name / f"{number}.png")
    data = load_dataset(tmp_path, image_size=8, validation=0)
    assert sorted(data.classes) == sorted(classes)
    splits = [data.development, *([data.test.unlock()] if data.test else [])]
    assert len(splits) == 1 + ("test" in shape and shape != "train alone")
    for split in splits:
        for image, label in zip(split.images, split.labels, strict=True):
            assert colours[data.classes[label]] == image[0, 0, 0]
    held("T19", "labels are those of the folders by name, whatever the layout", 1, f"{names}, {shape}")


def test_a_class_that_training_did_not_know_is_refused(tmp_path):
    for place in ("train/a", "train/b", "test/a", "test/c"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "0.png")
    with pytest.raises(UserError, match="c"):
        load_dataset(tmp_path, image_size=8)


# ------------------------------------------------------------------------------------- NaN and infinity


def spoilt(function, spoil, call):
    """The function, whose `call`-th result goes through `spoil`."""
    calls = []

    def replaced(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(1)
        return spoil(result) if len(calls) == call else result

    return replaced


def first_value(value):
    def spoil(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return spoil


def after_step(change, number=5):
    """Change model or optimiser after one of the steps."""

    def plant(monkeypatch, value):
        keep, models, calls = workshop.build_optimizer, [], []

        def build(model, *rest):
            models.append(model)
            optimizer = keep(model, *rest)
            step = optimizer.step

            def stepping(*arguments):
                calls.append(1)
                step(*arguments)
                if len(calls) == number:
                    with torch.no_grad():
                        change(models[0], optimizer, value)

            optimizer.step = stepping
            return optimizer

        monkeypatch.setattr(workshop, "build_optimizer", build)

    return plant


def when_built(change):
    """Change the model before the first step."""

    def plant(monkeypatch, value):
        keep = workshop.build_optimizer

        def build(model, *rest):
            with torch.no_grad():
                change(model, value)
            return keep(model, *rest)

        monkeypatch.setattr(workshop, "build_optimizer", build)

    return plant


def before_step(change):
    """Change the gradients before the fifth step."""

    def plant(monkeypatch, value):
        keep, calls = step.gradients, []

        def gradients(model, *rest):
            result = keep(model, *rest)
            calls.append(1)
            if len(calls) == 5:
                change(model, value)
            return result

        monkeypatch.setattr(step, "gradients", gradients)

    return plant


def parameter(model, name):
    return dict(model.named_parameters())[name]


def named(module, name, call, spoil):
    return lambda monkeypatch, value: monkeypatch.setattr(
        module, name, spoilt(getattr(module, name), spoil(value), call)
    )


def in_result(index, value):
    """Spoil one of several results."""

    def spoil(results):
        changed = list(results)
        changed[index] = first_value(value)(changed[index])
        return tuple(changed)

    return spoil


def set_first(tensor, value):
    tensor.view(-1)[0] = value


PLACES = {
    "an augmented image": named(step, "augment", 5, first_value),
    "an image of the first batch": named(step, "augment", 1, first_value),
    "a target": named(step, "mix", 5, lambda value: lambda pair: (pair[0], first_value(value)(one_hot(pair[1])))),
    "the loss": named(step, "gradients", 5, lambda value: lambda pair: in_result(0, value)(pair)),
    "the loss of the last step": named(step, "gradients", 18, lambda value: lambda pair: in_result(0, value)(pair)),
    "the gradient of a kernel": before_step(lambda model, value: set_first(first_kernel(model).grad, value)),
    "the gradient of a bias": before_step(lambda model, value: set_first(last_bias(model).grad, value)),
    "a kernel": after_step(lambda model, optimizer, value: set_first(first_kernel(model), value)),
    "a bias": after_step(lambda model, optimizer, value: set_first(last_bias(model), value)),
    "a momentum": after_step(
        lambda model, optimizer, value: set_first(optimizer.state[last_bias(model)]["momentum_buffer"], value)
    ),
    "a running mean": after_step(lambda model, optimizer, value: set_first(running(model).running_mean, value)),
    "a running variance": after_step(lambda model, optimizer, value: set_first(running(model).running_var, value)),
    "the learning rate": named(loop, "rate_factor", 5, lambda value: lambda rate: rate * value),
    "a logit of the validation": named(loop, "predict_logits", 1, first_value),
    "a logit of the last validation": named(loop, "predict_logits", 3, first_value),
    "the L2 penalty": named(loop, "l2_penalty", 1, lambda value: lambda penalty: penalty + value),
    "the mean of the images": when_built(lambda model, value: model.normalize.mean.fill_(value)),
    "the deviation of the images": when_built(lambda model, value: model.normalize.std.fill_(math.nan)),
    "the whitening": when_built(lambda model, value: set_first(next(model.network.whitening.parameters()), value)),
    # Where no loss is computed any more, and no validation image is there to tell: 240 images, batch 32, 3 epochs.
    "a kernel after the last step": after_step(
        lambda model, optimizer, value: set_first(first_kernel(model), value), number=21
    ),
    "a sum of the epoch": lambda monkeypatch, value: in_totals(monkeypatch, value),
}


def one_hot(labels):
    return F.one_hot(labels, 10).float()


def first_kernel(model):
    return next(p for p in model.parameters() if p.ndim == 4 and p.requires_grad)


def last_bias(model):
    return [p for p in model.parameters() if p.ndim == 1 and p.requires_grad][-1]


def running(model):
    return next(layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d))


def in_totals(monkeypatch, value):
    from thumbnet.training.state import Position

    keep, calls = Position.count, []

    def counting(self, *arguments):
        keep(self, *arguments)
        calls.append(1)
        if len(calls) == 5:
            self.totals[1] = value

    monkeypatch.setattr(Position, "count", counting)


KINDS = [(math.nan, True), (math.inf, False), *([(math.nan, False), (math.inf, True)] if FULL else [])]


@pytest.mark.parametrize(("value", "often"), KINDS, ids=lambda kind: str(kind))
@pytest.mark.parametrize("place", PLACES)
def test_a_number_that_is_not_finite_stops_the_run_and_is_never_kept(
    tiny, quick, tmp_path, monkeypatch, place, value, often
):
    recipe = vary(quick, cutmix=0.0, mixup=0.0)
    if place == "a kernel after the last step":
        recipe = vary(recipe, validation=0.0)
    with monkeypatch.context() as patched:
        PLACES[place](patched, value)
        with pytest.raises(
            TrainingFailed, match=r"start another run with --learning-rate 0.025 \(now 0.05\)"
        ) as caught:
            train(recipe, tiny, tmp_path / "run", machine=OFTEN if often else CPU, plots=False)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    run = Run.open(tmp_path / "run")
    assert not run.finished and not (run.path / "model.safetensors").exists()
    for row in run.metrics:
        assert all(value is None or math.isfinite(value) for value in row.values())
    checkpoint = load_checkpoint(run.path / "checkpoint", run.identity, lambda arrays: None)
    assert checkpoint is None or not checkpoint.passed_over
    if checkpoint is not None:
        assert all(np.isfinite(array).all() for array in checkpoint.arrays.values())
    held("T21", "NaN or infinity anywhere in a run: exit 1 with what to do, never saved, the last finite checkpoint intact",
         1, f"{value} in {place}")  # fmt: skip


def test_after_such_a_stop_the_last_checkpoint_goes_on_where_the_cause_is_gone(tiny, quick, tmp_path, monkeypatch):
    whole = train(quick, tiny, tmp_path / "whole", machine=CPU, plots=False)
    with monkeypatch.context() as patched:
        PLACES["a bias"](patched, math.nan)
        with pytest.raises(TrainingFailed):
            train(quick, tiny, tmp_path / "run", machine=OFTEN, plots=False)
    again = train(quick, tiny, tmp_path / "run", machine=CPU, plots=False)
    weights = [(run.path / "model.safetensors").read_bytes() for run in (again, whole)]
    assert weights[0] == weights[1]


def test_a_model_holds_no_number_that_is_not_finite_when_it_is_new(quick):
    for model in ("speednet_slim", "small_resnet", "preact_resnet18"):
        recipe = (
            copy.copy(quick)
            if model == "speednet_slim"
            else vary(quick, model=model, widths=(), optimizer="sgd", dropout=())
        )
        made = build_model(recipe, channels=3, classes=10)
        assert all(torch.isfinite(tensor).all() for tensor in made.state_dict().values())


# ------------------------------------------------------------------------------------- the lock of the test split

PATCH = """
import thumbnet.data.batches as batches
def refuse(self):
    raise AssertionError("the test split was opened")
batches.LockedSplit.unlock = refuse
"""


@pytest.mark.parametrize("words", [
    "train fashion-mini --recipe general --widths 8 16 16 --epochs 1",
    "preview fashion-mini",
    "study study.toml",
    "list datasets",
])  # fmt: skip
def test_no_command_but_those_that_say_so_opens_the_test_split(tmp_path, words):
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    (tmp_path / "study.toml").write_text(
        'dataset = "fashion-mini"\nrecipe = "general"\nseeds = 1\n[fields]\nwidths = [8, 16, 16]\nepochs = 0.5\n'
        '[[variant]]\nname = "a"\n[[variant]]\nname = "b"\nflip = false\n'
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def go(*more):
        command = [sys.executable, "-m", "thumbnet.cli.main", *more]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    done = go(*words.split())
    assert done.returncode == 0, done.stderr
    if words.startswith("train"):
        opened = go("evaluate", "runs/latest", "--split", "test")
        assert "the test split was opened" in opened.stderr  # the guard does guard
    held("P2", "train, preview and study never open the test split", 1, f"thumbnet {words.split()[0]}")
