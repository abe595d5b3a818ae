"""Splits, orders and the part held out for validation."""

from dataclasses import replace

import pytest
import torch

from thumbnet.data.batches import LockedSplit, epoch_order, fold_of, hold_out, together_in, whole
from thumbnet.errors import UserError
from thumbnet.randomness import generator, global_draws, seed_of


def numbered(size=100, classes=4):
    """Images whose only pixel is their number."""
    images = torch.arange(size, dtype=torch.uint8).view(size, 1, 1, 1)
    return whole(images, torch.arange(size) % classes)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64, 100, 1000])
def test_going_through_in_order_gives_each_image_exactly_once(batch_size):
    batches = list(numbered().in_order(batch_size))
    assert torch.cat([images.flatten() for images, _ in batches]).tolist() == list(range(100))
    assert torch.cat([labels for _, labels in batches]).tolist() == [number % 4 for number in range(100)]


def test_holding_out_cuts_every_class_by_the_same_part():
    train, held = hold_out(numbered(), 0.2, seed=0)
    assert torch.bincount(held.labels[held.rows]).tolist() == [5, 5, 5, 5]
    assert sorted(train.rows.tolist() + held.rows.tolist()) == list(range(100))


def test_the_part_held_out_follows_from_the_seed():
    rows = [hold_out(numbered(), 0.2, seed=seed)[1].rows.tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_holding_out_nothing_leaves_all_images_in_training():
    train, held = hold_out(numbered(), 0, seed=0)
    assert len(train) == 100
    assert held is None


def test_a_part_of_less_than_half_an_image_holds_one_of_each_class_that_has_two():
    train, held = hold_out(numbered(size=5), 0.1, seed=0)  # one class of two images, three of one
    assert held.labels[held.rows].tolist() == [0] and len(train) == 4


def test_a_part_that_cannot_hold_an_image_or_leaves_none_is_refused():
    with pytest.raises(
        UserError,
        match=r"validation 0\.1 of 4 images \(equal ones, .* count once\) leaves one part empty",
    ):
        hold_out(numbered(size=4), 0.1, seed=0)
    with pytest.raises(
        UserError,
        match=r"validation 0\.9 of 8 images \(equal ones, .* count once\) leaves one part empty",
    ):
        hold_out(numbered(size=8), 0.9, seed=0)


def test_each_epoch_visits_every_image_once_in_an_order_of_its_own():
    orders = [epoch_order(50, seed=3, epoch=epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert epoch_order(50, seed=3, epoch=1).tolist() == orders[1]
    assert epoch_order(50, seed=4, epoch=1).tolist() != orders[1]


def test_a_locked_split_is_opened_by_unlock_alone():
    opened = []
    locked = LockedSplit(100, lambda: opened.append(1) or numbered())
    assert len(locked) == 100
    assert "100 images" in repr(locked)
    assert opened == []
    assert len(locked.unlock()) == 100
    assert opened == [1]


def test_seeds_of_neighbouring_keys_differ_and_repeat():
    keys = [
        (seed, purpose, epoch, step)
        for seed in range(3)
        for purpose in ("a", "b")
        for epoch in range(5)
        for step in range(5)
    ]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(0, "a", 1, 11) != seed_of(0, "a", 11, 1)
    draws = [torch.rand(4, generator=generator("cpu", 1, "x")) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


def test_global_draws_are_a_function_of_the_key_and_leave_no_trace():
    before = torch.random.get_rng_state()
    results = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        with global_draws("cpu", 7, "dropout"):
            results.append(torch.nn.functional.dropout(torch.ones(50), 0.5))
    torch.random.set_rng_state(before)
    assert torch.equal(*results)
    with global_draws("cpu", 7, "dropout"):
        torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_hold_every_image_out_once_with_the_balance_of_the_classes(folds):
    split = numbered()
    held = [fold_of(split, folds, fold, seed=1) for fold in range(folds)]
    assert sorted(row for _, part in held for row in part.rows.tolist()) == sorted(split.rows.tolist())
    for rest, part in held:
        assert sorted([*rest.rows.tolist(), *part.rows.tolist()]) == sorted(split.rows.tolist())
        counts = [int((part.labels[part.rows] == label).sum()) for label in split.labels.unique()]
        whole_counts = [int((split.labels == label).sum()) for label in split.labels.unique()]
        assert all(abs(n - total / folds) < 1 for n, total in zip(counts, whole_counts, strict=True))


def test_folds_are_a_function_of_the_seed():
    rows = [fold_of(numbered(), 3, 0, seed=seed)[1].rows.tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_more_folds_than_images_are_refused():
    for fold in (0, 999):
        with pytest.raises(UserError, match="choose fewer"):
            fold_of(numbered(), 1_000, fold, seed=0)


def test_evenly_spaced_images_are_those_from_the_first_to_the_last():
    split = whole(torch.zeros(45_000, 1, 1, 1, dtype=torch.uint8), torch.arange(45_000))
    assert len(set(split.evenly_spaced(1000)[1].tolist())) == 1000
    few = replace(split, rows=torch.tensor([4, 7, 9, 2, 5]))
    assert few.evenly_spaced(3)[1].tolist() == [4, 9, 5] and few.evenly_spaced(10)[1].tolist() == [4, 7, 9, 2, 5]


def with_equal_images(images=60, seed=0):
    """Images of three classes, of which two thirds are there two to four times."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 1, 4, 4), dtype=torch.uint8, generator=random)
    pixels[images // 3 :] = pixels[torch.randint(0, images // 3, (images - images // 3,), generator=random)]
    return whole(pixels, torch.arange(images) % 3)


@pytest.mark.parametrize("seed", range(5))
def test_equal_images_are_held_out_together_or_not_at_all(seed):
    split = with_equal_images(seed=seed)
    folds = [fold_of(split, 4, fold, seed=seed, together=together_in(split)) for fold in range(4)]
    for train, held in (hold_out(split, 0.2, seed=seed, together=together_in(split)), *folds):
        assert 0 < len(held) < len(split) == len(train) + len(held)
        seen = {image.numpy().tobytes() for image in split.images[train.rows]}
        assert not any(image.numpy().tobytes() in seen for image in split.images[held.rows])
    assert sorted(row for _, held in folds for row in held.rows.tolist()) == list(range(len(split)))


@pytest.mark.parametrize("seed", range(5))
def test_images_of_one_group_are_held_out_together_and_so_are_groups_that_share_an_image(seed):
    split = with_equal_images(seed=seed)
    groups = torch.randint(0, 600, (len(split),), generator=torch.Generator().manual_seed(seed))
    together = together_in(split, groups)
    joined = {tuple(sorted(pair)) for pair in zip(range(len(split)), together.tolist(), strict=True)}
    kinds = [groups.tolist(), [image.numpy().tobytes() for image in split.images]]
    for train, held in [fold_of(split, 3, fold, seed=seed, together=together) for fold in range(3)]:
        assert 0 < len(held) < len(split) == len(train) + len(held)
        for kind in kinds:
            assert not {kind[row] for row in train.rows.tolist()} & {kind[row] for row in held.rows.tolist()}
    assert all(first == together[first] for first, _ in joined)  # each follows one that follows nobody


def test_groups_count_stored_images_where_a_split_has_some_of_them_only():
    split = replace(
        with_equal_images(images=30), rows=torch.arange(9, -1, -1)
    )  # those that are different, the last first
    groups = torch.arange(30)
    groups[[3, 8]] = 99
    assert together_in(split, groups).tolist() == [0, 1, 2, 3, 4, 5, 1, 7, 8, 9]
    assert together_in(split, torch.arange(30)) is None


def test_images_of_which_none_are_equal_are_held_out_as_they_always_were(tiny):
    assert tiny.together is None
    cuts = [tiny.with_validation(0.2, seed=3, copies_together=together) for together in (True, False)]
    assert torch.equal(cuts[0].validation.rows, cuts[1].validation.rows)
    assert torch.equal(cuts[0].train.rows, hold_out(tiny.development, 0.2, seed=3)[0].rows)


def test_a_published_set_is_cut_as_it_always_was_even_where_images_are_equal(tiny):
    rows = tiny.development.rows.clone()
    rows[1::2] = rows[::2]  # every image twice
    doubled = replace(tiny, development=replace(tiny.development, rows=rows))
    published = replace(doubled, name="cifar100").with_validation(0.2, seed=3)
    assert not published.copies_together and doubled.with_validation(0.2, seed=3).copies_together
    assert torch.equal(published.validation.rows, hold_out(doubled.development, 0.2, seed=3)[1].rows)
