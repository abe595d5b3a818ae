"""Augmentation against independent references, and the distribution of its draws."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from thumbnet.augment import (
    affine,
    augment,
    crop,
    cutmix,
    cutout,
    flip_draws,
    jitter,
    jitter_draws,
    kernel_for,
    mirror,
    mirrored_in_epoch,
    mix,
    mixup,
    resampling_matrix,
    to_float,
    window_offsets,
)  # fmt: skip
from thumbnet.kernels.library import library
from thumbnet.recipes import recipe

BATCH = 64
NONE = torch.zeros(BATCH, dtype=torch.bool)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(batch=BATCH, height=32, width=32):
    return torch.rand(batch, 3, height, width, generator=random(9))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 20)])
def test_affine_equals_scipys_affine_transform_with_nearest_borders(height, width):
    images = pictures(16, height, width)

    result = affine(images, random(3), zoom=0.2, shift=0.15, flip=True)

    draws = torch.rand(16, 5, generator=random(3)).double().numpy()  # the same numbers, read as the docstring says
    for index in range(16):
        zoom = 1 + 0.2 * (2 * draws[index, 0:2] - 1)
        offset = 0.15 * (2 * draws[index, 2:4] - 1) * [height, width]
        mirror = np.array([1.0, -1.0 if draws[index, 4] < 0.5 else 1.0])
        centre = (np.array([height, width]) - 1) / 2
        matrix = zoom * mirror  # output -> input, as SciPy wants it
        for channel in range(3):
            expected = ndimage.affine_transform(
                images[index, channel].double().numpy(),
                matrix,
                centre - matrix * centre + offset,
                order=1,
                mode="nearest",
            )
            np.testing.assert_allclose(result[index, channel].numpy(), expected, atol=1e-5)


def test_affine_without_zoom_shift_or_flip_changes_nothing():
    torch.testing.assert_close(affine(pictures(), random(), zoom=0, shift=0, flip=False), pictures())


def test_affine_zooms_height_and_width_independently_within_the_range():
    """The slopes of a ramp tell the zoom of each side."""
    size = 101
    ramp = torch.linspace(0, 1, size)
    images = torch.stack((ramp[:, None].expand(size, size), ramp[None, :].expand(size, size)))[None].expand(
        400, 2, size, size
    )
    result = affine(images, random(1), zoom=0.2, shift=0.1, flip=False)
    middle = slice(40, 60)  # away from the borders, which repeat
    rows = result[:, 0, middle, 50].diff(dim=1).mean(1) * (size - 1)
    columns = result[:, 1, 50, middle].diff(dim=1).mean(1) * (size - 1)
    for zoom in (rows, columns):
        assert 0.8 <= zoom.min() < 0.82
        assert 1.18 < zoom.max() <= 1.2001
        assert zoom.mean().item() == pytest.approx(1.0, abs=0.02)
    assert abs(torch.corrcoef(torch.stack((rows, columns)))[0, 1]) < 0.15


def test_affine_shifts_up_to_the_given_part_of_the_side():
    size = 100
    ramp = torch.arange(size).float()[None, None, :, None].expand(500, 1, size, size)
    result = affine(ramp, random(2), zoom=0, shift=0.15, flip=False)
    moved = result[:, 0, 50, 50] - 50
    assert -15 <= moved.min() < -14
    assert 14 < moved.max() <= 15


def test_the_middle_of_a_resampling_matrix_sums_to_one_for_any_draw():
    rows = resampling_matrix(torch.tensor([0.8, -1.2, 1.0]), torch.tensor([4.8, -3.3, 100.0]), 32).sum(2)
    torch.testing.assert_close(rows, torch.ones(3, 32), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "half", [lambda x, g: mirror(x, flip_draws(x, g)), lambda x, g: affine(x, g, zoom=0, shift=0, flip=True)]
)
def test_about_half_of_the_images_are_mirrored_left_to_right_and_the_others_untouched(half):
    images = pictures(1000, 4, 4)
    result = half(images, random(5))
    same = torch.isclose(result, images, atol=1e-6).flatten(1).all(1)
    mirrored = torch.isclose(result, images.flip(3), atol=1e-6).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 440 < mirrored.sum() < 560  # 4 standard deviations


def test_crop_reaches_every_offset_equally_and_reflects_the_border():
    padding, size = 2, 8
    images = torch.arange(size * size).float().view(1, 1, size, size).expand(5000, 1, size, size)
    result = crop(images, window_offsets(images, random(6), padding=padding), padding=padding)
    padded = torch.nn.functional.pad(images[:1], (padding,) * 4, mode="reflect")[0, 0]
    windows = {tuple(padded[i : i + size, j : j + size].flatten().tolist()): (i, j) for i in range(5) for j in range(5)}
    counts = {}
    for image in result:
        place = windows[tuple(image.flatten().tolist())]  # KeyError: not a window of the padded picture
        counts[place] = counts.get(place, 0) + 1
    assert len(counts) == 25
    assert min(counts.values()) > 140 and max(counts.values()) < 265  # 200 expected, sd 14


def test_cutout_blanks_one_square_and_nothing_else():
    images = pictures(200)
    result = cutout(images, random(7), side=8)
    changed = (result != images).any(1)  # B H W
    assert changed.flatten(1).any(1).all()
    for mask in changed:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert len(rows) <= 8 and len(columns) <= 8
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float().mean() > 0.99  # filled
    assert (changed.sum(dim=(1, 2)) == 64).float().mean() > 0.4  # most squares lie inside


@pytest.mark.parametrize("name", ["general", "cifar10-classic", "cifar10-resnet18", "cifar10-94"])
def test_augmented_images_are_floats_in_the_unit_range_and_a_function_of_the_generator(name):
    images = (pictures() * 255).byte()
    first, same, other = (augment(images, recipe(name), random(seed), NONE) for seed in (1, 1, 2))
    assert first.dtype == torch.float32
    assert first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_every_image_of_a_batch_is_changed_by_draws_of_its_own():
    images = (pictures(1).expand(BATCH, 3, 32, 32) * 255).byte()
    result = augment(images, recipe("cifar10-classic"), random(), NONE)
    assert len({tuple(image.flatten().tolist()) for image in result}) == BATCH


def test_pixels_become_numbers_by_dividing_by_255():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


def test_alternating_flips_show_every_image_once_each_way_in_two_epochs():
    first, second, third = (mirrored_in_epoch(1000, seed=4, epoch=epoch) for epoch in (0, 1, 2))
    assert torch.equal(first, ~second) and torch.equal(first, third)
    assert 440 < first.sum() < 560
    assert not torch.equal(first, mirrored_in_epoch(1000, seed=5, epoch=0))


def test_given_which_images_to_mirror_augment_mirrors_those_and_no_others():
    images = (pictures(4) * 255).byte()
    chosen = torch.tensor([True, False, True, False])
    result = augment(images, recipe("general", crop=0, alternate_flip=True), random(), chosen)
    torch.testing.assert_close(result[chosen], to_float(images[chosen].flip(3)))
    torch.testing.assert_close(result[~chosen], to_float(images[~chosen]))


def test_without_flip_nothing_is_mirrored_whatever_else_a_recipe_says():
    images = (pictures(64) * 255).byte()
    chosen = torch.ones(64, dtype=torch.bool)
    for alternate in (True, False):
        made = dataclasses.replace(recipe("general", crop=0), flip=False, alternate_flip=alternate)
        torch.testing.assert_close(augment(images, made, random(), chosen), to_float(images))


@pytest.mark.skipif(library(torch.bfloat16) is None, reason="the C needs Linux, gcc and torch's OpenMP")
@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((50, 3, 9, 12), {"crop": 3, "jitter": 0.9}),
        ((5, 1, 8, 8), {"crop": 7}),
        ((7, 4, 5, 30), {"crop": 0, "jitter": 0.1}),
        ((9, 3, 8, 8), {"crop": 2, "flip": False}),
        ((9, 3, 8, 8), {"crop": 1, "alternate_flip": False, "jitter": 0.2}),
    ],
)
def test_images_are_changed_in_one_pass_as_they_are_one_by_one(shape, changes, monkeypatch):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random(3))
    mirrored, made = torch.arange(len(images)) % 3 == 0, recipe("general", **changes)
    assert kernel_for(images, made.crop) is not None
    in_one = augment(images, made, random(1), mirrored)
    monkeypatch.setattr("thumbnet.augment.kernel_for", lambda images, padding: None)
    one_by_one = augment(images, made, random(1), mirrored)
    torch.testing.assert_close(in_one, one_by_one, atol=1e-6 if made.jitter else 0, rtol=0)
    assert in_one.is_contiguous(memory_format=torch.channels_last)


def test_more_is_not_reflected_than_there_is():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert kernel_for(images, 8) is None
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        augment(images, recipe("general", crop=8), random(), torch.ones(2, dtype=torch.bool))


def test_jitter_shifts_brightness_and_scales_contrast_image_by_image_within_its_strength():
    images = 0.4 + 0.2 * pictures(400)
    result = jitter(images, jitter_draws(images, random(3)), strength=0.1)
    shift = (result.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))).abs()
    scale = result.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert 0.09 < shift.max() <= 0.1001 and shift.min() < 0.01
    assert 0.9 - 1e-4 <= scale.min() < 0.91 and 1.09 < scale.max() <= 1.1 + 1e-4


def test_cutmix_gives_every_image_one_rectangle_of_another_and_its_part_of_the_label():
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 16) / 8
    others = torch.arange(8).roll(1)
    for seed in range(20):
        mixed, targets = cutmix(images, torch.eye(8), others, random(seed))
        foreign = mixed != images  # B 1 H W
        assert torch.equal(mixed[foreign], images[others][foreign])
        part = foreign.float().mean(dim=(1, 2, 3))
        torch.testing.assert_close(targets[torch.arange(8), others], part)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_mixup_blends_images_and_targets_by_the_same_part():
    images, others = pictures(6), torch.arange(6).roll(2)
    mixed, targets = mixup(images, torch.eye(6), others, random(2))
    part = targets[0, others[0]]
    torch.testing.assert_close(mixed, (1 - part) * images + part * images[others])


def test_mixing_ends_where_the_recipe_says_and_leaves_the_labels_themselves():
    images, labels = pictures(8), torch.arange(8)
    chosen = recipe("general", cutmix=1.0, mix_until=0.7)
    mixed, targets = mix(images, labels, 8, chosen, random(), at=0.69)
    assert targets.shape == (8, 8) and not torch.equal(mixed, images)
    same, kept = mix(images, labels, 8, chosen, random(), at=0.7)
    assert same is images and kept is labels
