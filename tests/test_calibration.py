"""Calibration against brute force and scikit-learn, and what temperatures and thresholds promise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from thumbnet.judging.calibration import (
    HOTTEST,
    answers_from,
    calibration,
    confidence_and_hits,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    threshold_for,
)


def made_up(images=400, classes=6, scale=3.0, seed=0):
    """Logits that are right more often than not, and too sure of it."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=random)
    logits = torch.randn(images, classes, generator=random)
    return scale * (logits + 1.5 * F.one_hot(labels, classes)), labels


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_the_error_with_equal_widths_is_that_counted_one_by_one(bins):
    confidence, correct = confidence_and_hits(*made_up())
    total = 0.0
    for k in range(bins):
        inside = [
            (c, h) for c, h in zip(confidence.tolist(), correct.tolist(), strict=True) if k / bins < c <= (k + 1) / bins
        ]
        if inside:
            total += abs(sum(c for c, _ in inside) - sum(h for _, h in inside))
    assert expected_calibration_error(confidence, correct, bins=bins) == pytest.approx(total / len(correct), abs=1e-6)


def test_the_error_with_equal_masses_puts_as_many_images_into_each_bin():
    confidence, correct = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]), torch.tensor([1, 0, 1, 1, 1, 1]).bool()
    expected = (abs(1.8 - 2) + abs(2.7 - 3)) / 6
    assert expected_calibration_error(confidence, correct, bins=2, equal_mass=True) == pytest.approx(expected, abs=1e-6)


def test_the_points_of_the_reliability_diagram_are_scikit_learns():
    from sklearn.calibration import calibration_curve

    confidence, correct = confidence_and_hits(*made_up(2_000))
    accuracy, mean = calibration_curve(correct.numpy(), confidence.numpy(), n_bins=15)
    bins = reliability(confidence, correct)
    assert [row.accuracy for row in bins] == pytest.approx(accuracy.tolist())
    assert [row.confidence for row in bins] == pytest.approx(mean.tolist(), abs=1e-6)
    assert sum(row.images for row in bins) == 2_000
    assert all(row.interval95[0] <= row.accuracy <= row.interval95[1] for row in bins)


@given(st.floats(0.3, 8, allow_subnormal=False), st.integers(0, 5))
def test_the_temperature_minimises_the_cross_entropy(scale, seed):
    logits, labels = made_up(scale=scale, seed=seed)
    best = fit_temperature(logits, labels)
    losses = []
    for temperature in (0.97 * best, best, 1.03 * best):
        belief = math.log(temperature) ** 2 / (2 * 0.5**2)
        losses.append(F.cross_entropy(logits.double() / temperature, labels, reduction="sum").item() + belief)
    assert min(losses) == losses[1]


def test_logits_scaled_by_four_have_four_times_the_temperature():
    logits, labels = made_up(4_000)
    assert fit_temperature(4 * logits, labels) == pytest.approx(4 * fit_temperature(logits, labels), rel=1e-2)


def test_logits_that_are_always_wrong_get_the_hottest_temperature():
    assert fit_temperature(torch.eye(4).repeat(500, 1) * 5, torch.arange(4).roll(1).repeat(500)) == pytest.approx(
        HOTTEST
    )


def test_a_few_images_without_a_mistake_allow_no_certainty():
    logits = torch.eye(4)[torch.arange(12) % 4] * 5
    labels = torch.arange(12) % 4
    assert 0.7 < fit_temperature(logits, labels) < 1


def test_three_images_with_two_mistakes_change_little():
    logits = torch.tensor([[0.10, 0.0, 0.05], [0.0, 0.02, 0.01], [0.3, 0.1, 0.0]])
    assert 0.7 < fit_temperature(logits, torch.tensor([0, 0, 1])) < 1.4


def test_what_a_threshold_gives_on_other_images_is_counted_there():
    confidence, correct = torch.tensor([0.5, 0.9, 0.7, 0.95]), torch.tensor([True, False, True, True])
    found = answers_from(confidence, correct, 0.7, 0.99)
    assert (found.images, found.coverage, found.accuracy) == (3, 0.75, pytest.approx(2 / 3))
    assert answers_from(confidence, correct, 0.99, 0.99).images == 0


def test_the_temperature_repairs_what_was_too_sure_and_changes_no_answer():
    logits, labels = made_up(4_000)
    measured = calibration(logits, labels, fit_temperature(logits, labels))
    assert measured.error_after < 0.03 < measured.error
    assert measured.loss_after < measured.loss
    assert torch.equal(logits.argmax(1), (logits / measured.temperature).argmax(1))


def test_risk_and_coverage_of_a_worked_example():
    coverage, risk = risk_coverage(torch.tensor([0.6, 0.9, 0.8, 0.7]), torch.tensor([False, True, False, True]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


@given(st.integers(0, 30), st.sampled_from([0.6, 0.8, 0.9, 0.99]))
def test_a_threshold_keeps_its_promise_and_is_the_lowest_that_does(seed, target):
    logits, labels = made_up(120, seed=seed)
    confidence, correct = confidence_and_hits(logits, labels)
    found = threshold_for(confidence, correct, target)
    fitting = [c for c in confidence.tolist() if correct[confidence >= c].double().mean() >= target]
    if not fitting:
        assert found is None
        return
    answered = confidence >= found.confidence
    assert found.confidence == pytest.approx(min(fitting))
    assert found.accuracy == pytest.approx(correct[answered].double().mean().item())
    assert (found.images, found.coverage) == (int(answered.sum()), pytest.approx(answered.double().mean().item()))


def test_images_of_one_confidence_are_answered_together():
    confidence, correct = torch.tensor([0.9, 0.9, 0.5]), torch.tensor([True, False, True])
    assert threshold_for(confidence, correct, 0.8) is None
    assert threshold_for(confidence, correct, 0.6).images == 3
