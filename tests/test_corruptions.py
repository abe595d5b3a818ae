"""Corruptions: shapes, ranges, repeatability, severity, and each against something computed in another way."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import CPU
from thumbnet.backend import prepare
from thumbnet.data.batches import whole
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.judging.corruptions import (
    COSINES,
    FAMILIES,
    KINDS,
    LEVELS,
    TO_YCBCR,
    corrupt,
    gaussian_pair,
    jpeg_compression,
)
from thumbnet.judging.robustness import evaluate_robustness, measure_robustness, overlaps
from thumbnet.recipes import recipe
from thumbnet.training.loop import train

# Glass blur and elastic transforms are not harder at every level, there as here. Frost, snow and motion are drawn anew at
# each level, and pixels of 28 and 27 to a side fall differently on outlines; their last level changes more than their first.
UP_AND_DOWN = {"glass_blur", "elastic_transform"}
ROUGHLY = {"frost", "snow", "motion_blur", "pixelate"}


@pytest.fixture(scope="module")
def grey():
    return torch.from_numpy(read_fashion_mini().arrays["train_images"][:24]).float() / 255


@pytest.fixture(scope="module")
def coloured(grey):
    """Real outlines in 32 pixels, filled with smooth colours."""
    shapes = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear")
    ramp = torch.linspace(0.2, 0.9, 32)
    background = torch.stack((ramp.expand(32, 32), ramp.flip(0).expand(32, 32), ramp[:, None].expand(32, 32)))
    return (0.6 * background + 0.4 * shapes).clamp(0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_shape_and_range_and_changes_the_images(kind, grey, coloured):
    for images in (grey, coloured):
        for level in range(1, 6):
            found = corrupt(images, kind, level)
            assert found.shape == images.shape and found.dtype == torch.float32
            assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
            assert (found - images).abs().mean() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_are_a_function_of_kind_level_and_seed(kind, coloured):
    assert torch.equal(corrupt(coloured, kind, 3), corrupt(coloured, kind, 3))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    corrupt(coloured, kind, 3)
    assert torch.equal(before, torch.get_rng_state())
    drawn = kind not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    assert torch.equal(corrupt(coloured, kind, 3), corrupt(coloured, kind, 3, seed=1)) is not drawn


@pytest.mark.parametrize("kind", sorted(set(KINDS) - UP_AND_DOWN))
def test_a_higher_level_changes_more(kind, coloured):
    changes = [(corrupt(coloured, kind, level) - coloured).square().mean().item() for level in range(1, 6)]
    assert changes[4] > 1.2 * changes[0]
    if kind not in ROUGHLY:
        assert changes == sorted(changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(9, 9), (20, 33), (64, 48)])
def test_any_size_can_be_corrupted(kind, size):
    images = torch.linspace(0, 1, 2 * 3 * size[0] * size[1]).view(2, 3, *size)
    assert corrupt(images, kind, 5).shape == images.shape


def test_there_are_fifteen_kinds_of_five_levels_in_four_families():
    assert len(KINDS) == 15
    assert {len(levels) for levels in LEVELS.values()} == {5}
    assert sorted(kind for kinds in FAMILIES.values() for kind in kinds) == sorted(KINDS)


def test_noise_has_the_spread_it_is_said_to_have():
    middle = torch.full((8, 3, 64, 64), 0.5)
    for level, (deviation,) in enumerate(LEVELS["gaussian_noise"], start=1):
        assert (corrupt(middle, "gaussian_noise", level) - middle).std().item() == pytest.approx(deviation, rel=0.03)
    for level, (photons,) in enumerate(LEVELS["shot_noise"], start=1):
        found = corrupt(middle, "shot_noise", level)
        assert (found - middle).std().item() == pytest.approx((0.5 / photons) ** 0.5, rel=0.03)
    for level, (part,) in enumerate(LEVELS["impulse_noise"], start=1):
        found = corrupt(middle, "impulse_noise", level)
        assert (found != 0.5).double().mean().item() == pytest.approx(part, rel=0.1)


def test_smoothing_is_scipys():
    from scipy.ndimage import gaussian_filter

    from thumbnet.judging.corruptions import blur

    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = blur(image, *gaussian_pair(1.5))[0, 0].numpy()
    theirs = gaussian_filter(image[0, 0].numpy(), 1.5, truncate=4, mode="nearest")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_transform_of_jpeg_is_orthonormal_and_colours_come_back():
    torch.testing.assert_close(COSINES @ COSINES.T, torch.eye(8), atol=1e-6, rtol=0)
    colours = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.linalg.inv(TO_YCBCR) @ (TO_YCBCR @ colours), colours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quality", [40, 65, 80])
def test_jpeg_is_close_to_pillows(quality, coloured):
    ours = jpeg_compression(coloured, (quality,), torch.Generator())
    for image, found in zip(coloured, ours, strict=True):
        buffer = io.BytesIO()
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        theirs = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255
        assert (found - theirs).abs().mean() < 0.25 * (image - theirs).abs().mean() + 0.004


def test_brightness_keeps_hue_and_contrast_keeps_the_mean(coloured):
    dark = 0.4 * coloured
    brighter = corrupt(dark, "brightness", 2)
    torch.testing.assert_close(brighter.amax(1), dark.amax(1) + 0.1)
    torch.testing.assert_close(brighter / brighter.amax(1, keepdim=True), dark / dark.amax(1, keepdim=True))
    flatter = corrupt(coloured, "contrast", 3)
    torch.testing.assert_close(flatter.mean((2, 3)), coloured.mean((2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(flatter.std((2, 3)), 0.4 * coloured.std((2, 3)), atol=1e-3, rtol=0)


# ---------------------------------------------------------------- robustness


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    made = recipe("general", widths=(16, 16, 32), epochs=2, batch_size=32, jitter=0.2)
    return train(made, tiny, tmp_path_factory.mktemp("robust") / "run", machine=CPU)


def test_robustness_is_measured_by_kind_and_level_and_kept(run, tiny):
    seen = []
    found = evaluate_robustness(run, images=16, machine=CPU, data=tiny, progress=lambda *told: seen.append(told))
    assert seen[0] == ("corrupting 16 images in 15 kinds", 0, 75) and [done for _, done, _ in seen] == list(range(75))
    assert [row.kind for row in found.rows] == [kind for kinds in FAMILIES.values() for kind in kinds]
    assert found.images == 16
    assert found.corrupted == pytest.approx(np.mean([row.accuracies for row in found.rows]))
    assert run.robustness["corrupted"] == found.corrupted
    assert run.test_openings == 0
    assert "jitter 0.2, which is close to brightness and contrast" in found.warnings[0]


def test_a_network_that_sees_one_pixel_loses_nothing_to_what_leaves_it_alone():
    """Zero contrast loss in the mean colour: a classifier of mean brightness survives contrast and pixelation."""

    class Mean(torch.nn.Module):
        def forward(self, images):
            mean = images.mean((1, 2, 3))
            return torch.stack((0.5 - mean, mean - 0.5), dim=1)

    random = torch.Generator().manual_seed(0)
    dark = torch.randint(0, 100, (10, 3, 32, 32), generator=random, dtype=torch.uint8)
    images = whole(torch.cat((dark, 255 - dark)), torch.arange(20) // 10)
    found = measure_robustness(Mean(), images, prepare(CPU), split="test", recipe=recipe("general"))
    by_kind = {row.kind: row.accuracies for row in found.rows}
    assert found.clean == 1
    for kind in ("contrast", "pixelate", "defocus_blur", "gaussian_noise"):
        assert by_kind[kind] == (1,) * 5
    assert found.warnings == ()


def test_images_are_spread_over_the_split():
    split = whole(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), torch.arange(100))
    assert split.evenly_spaced(5)[1].tolist() == [0, 24, 49, 74, 99]
    assert len(split.evenly_spaced(1_000)[1]) == 100


def test_training_that_saw_such_changes_is_warned_of():
    assert overlaps(recipe("general")) == []
    assert len(overlaps(recipe("general", jitter=0.1, zoom=0.1))) == 2
