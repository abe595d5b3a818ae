"""Maps point where the answer comes from: a planted patch decides the class, and a control without it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thumbnet.judging.explanation
from conftest import CPU, pictures
from thumbnet.backend import prepare
from thumbnet.cli.predict import explain_files
from thumbnet.data.batches import whole
from thumbnet.data.datasets import assemble
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError
from thumbnet.judging.explanation import (
    activation_maps,
    embeddings,
    explain,
    log_odds,
    occlusion_maps,
    save_explanations,
)
from thumbnet.models.registry import create_model, list_models
from thumbnet.recipes import recipe
from thumbnet.shipping.classifier import Prediction
from thumbnet.shipping.loading import load
from thumbnet.training.loop import train

SIDE, PATCH = 32, 8
PLACES = ((2, 3), (20, 4), (3, 21), (19, 20))  # top and left of the patch, one for each quarter


def planted(count: int, seed: int):
    """Noise with one bright patch in a quarter of the image, whose stripes alone say the class; (images, labels, places)."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(60, 120, (count, 3, SIDE, SIDE), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 2, (count,), generator=random)
    places = torch.randint(0, 4, (count,), generator=random)
    stripes = (torch.arange(PATCH) // 2 % 2 * 255).to(torch.uint8)
    for i in range(count):
        top, left = PLACES[places[i]]
        patch = stripes[:, None].expand(PATCH, PATCH) if labels[i] else stripes[None, :].expand(PATCH, PATCH)
        images[i, :, top : top + PATCH, left : left + PATCH] = patch
    return images, labels, places


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run that has learnt the patches."""
    images, labels, _ = planted(600, seed=0)
    arrays = {"train_images": images.numpy(), "train_labels": labels.numpy()}
    data = assemble("planted", Pack(arrays, {"classes": ["down", "across"]}), {"location": "memory"})
    still = {"flip": False, "alternate_flip": False, "crop": 0, "resolution": (1.0,)}
    made = recipe("general", widths=(16, 32, 32), epochs=4, batch_size=50, **still)
    run = train(made, data, tmp_path_factory.mktemp("planted") / "run", machine=CPU)
    assert run.summary["validation_accuracy"] > 0.95
    return run, data


def part_on_patch(maps: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """How much of what is positive lies on the patch or within 3 pixels of it, by image."""
    parts = []
    for map_, place in zip(maps.clamp(min=0), places, strict=True):
        top, left = PLACES[place]
        inside = map_[max(0, top - 3) : top + PATCH + 3, max(0, left - 3) : left + PATCH + 3].sum()
        parts.append(inside / map_.sum().clamp(min=1e-12))
    return torch.stack(parts)


@pytest.mark.parametrize("kind", ["occlusion", "activation"])
def test_maps_point_at_the_patch_that_decides(kind, learnt):
    run, _ = learnt
    images, labels, places = planted(40, seed=1)
    found = explain(run.model(), images, labels, prepare(CPU))
    maps = torch.stack([getattr(explanation, kind) for explanation in found])
    area = (PATCH + 6) ** 2 / SIDE**2  # what a map that knows nothing would put there
    assert part_on_patch(maps, places).mean() > 3 * area
    elsewhere = (places + 2) % 4
    assert part_on_patch(maps, elsewhere).mean() < area


def test_a_network_that_looks_elsewhere_is_not_said_to_look_at_the_patch():
    class Centre(nn.Module):
        def __init__(self):
            super().__init__()
            self.grey = nn.Conv2d(3, 1, 1)
            nn.init.constant_(self.grey.weight, 1 / 3)  # what is drawn would be another network in each process

        def forward(self, x):
            value = self.grey(x)[:, :, 14:17, 14:17].mean((1, 2, 3))
            return torch.stack((value, -value), dim=1)

    images, labels, places = planted(20, seed=1)
    x = images.float() / 255
    for maps in (activation_maps(Centre(), x, labels), occlusion_maps(Centre(), x, labels)):
        assert part_on_patch(maps, places).mean() < (PATCH + 6) ** 2 / SIDE**2


def test_covering_what_is_not_looked_at_costs_nothing():
    class Corner(nn.Module):
        def forward(self, x):
            bright = x[:, :, :8, :8].mean((1, 2, 3))
            return torch.stack((bright, 1 - bright), dim=1)

    images = torch.zeros(1, 1, SIDE, SIDE)
    images[:, :, :8, :8] = 1
    [map_] = occlusion_maps(Corner(), images, torch.tensor([0]))
    assert map_[:8, :8].mean() > 0.5 * map_.max() > 0
    assert map_[16:, 16:].abs().max() < 1e-6


def test_log_odds_are_those_of_the_probabilities():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 3, 0])
    p = logits.softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, targets), (p / (1 - p)).log())


@pytest.mark.parametrize("name", list_models())
def test_the_activation_map_is_of_a_layer_with_eight_places_a_side(name, monkeypatch):
    sides = []

    def seen(map_, size, keep=F.interpolate, **options):
        sides.append(map_.shape[2:])
        return keep(map_, size, **options)

    model = create_model(name, classes=5, channels=3).eval()
    monkeypatch.setattr(thumbnet.judging.explanation.F, "interpolate", seen)
    activation_maps(model, torch.rand(1, 3, 32, 32), torch.tensor([0]))
    assert min(sides[-1]) >= 8


def test_the_activation_map_of_an_image_does_not_depend_on_how_many_are_explained():
    model = create_model("speednet", classes=5, channels=3).eval()
    images = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    together = activation_maps(
        model, images, torch.arange(8) % 5
    )  # enough of them for a convolution that pools by itself
    assert torch.allclose(activation_maps(model, images[:1], torch.tensor([0])), together[:1], atol=0.02)  # rounding


@pytest.mark.parametrize("name", list_models())
def test_every_model_can_be_explained(name):
    model = create_model(name, classes=5, channels=3).eval()
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    maps = activation_maps(model, images, torch.tensor([0, 4]))
    assert maps.shape == (2, SIDE, SIDE) and maps.isfinite().all()
    assert embeddings(model, whole((images * 255).byte(), torch.zeros(2, dtype=torch.int64))).shape[0] == 2
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_nearest_training_image_of_a_training_image_is_itself(learnt):
    run, data = learnt
    images, labels = data.train.take(torch.arange(4))
    found = explain(run.model(), images, labels, prepare(CPU), training=data.train)
    for i, explanation in enumerate(found):
        first = explanation.neighbours[0]
        assert torch.equal(first.image, images[i]) and first.similarity == pytest.approx(1, abs=1e-5)
        values = [neighbour.similarity for neighbour in explanation.neighbours]
        assert values == sorted(values, reverse=True)


def test_pictures_are_named_after_the_files_and_never_overwrite(learnt, tmp_path):
    from PIL import Image

    run, data = learnt
    files = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    for index, file in enumerate(files):
        file.parent.mkdir()
        Image.fromarray(data.development.images[index].permute(1, 2, 0).numpy()).save(file)
    rows = [Prediction(str(file), (("down", 0.9), ("across", 0.1))) for file in files]
    paths = save_explanations(load(run, machine=CPU), data, rows, tmp_path / "why")
    assert [path.name for path in paths] == ["x.png", "x-2.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width > 500
    with pytest.raises(UserError, match="is taken; choose another folder"):
        save_explanations(load(run, machine=CPU), data, rows, tmp_path / "why")


def test_neighbours_are_not_shown_of_a_folder_that_has_changed_since_the_run(tmp_path):
    pictures(folder := tmp_path / "flowers", classes=("a", "b", "c"))
    run = train(recipe("general", widths=(8, 8, 8), epochs=1, batch_size=8), folder, tmp_path / "run", machine=CPU)
    rows = [Prediction(str(folder / "a" / "0.png"), (("a", 1.0),))]
    (folder / "b").rename(folder / "d")  # d is the last class now, and c is where b was
    with pytest.raises(UserError, match="has the classes a, c, d, the run"):
        explain_files(run, load(run, machine=CPU), rows, tmp_path / "why", None)
    assert not (tmp_path / "why").exists()
