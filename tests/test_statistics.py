"""Intervals and tests against SciPy's."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thumbnet.judging.statistics import (
    ROUNDING,
    accuracy_interval,
    grouped_interval,
    holm,
    images_to_show,
    incomplete_beta,
    mcnemar,
    mean_interval,
    paired_t,
    t_quantile,
    t_two_sided,
    welch,
    wilson_interval,
)


def numbers(low, high):
    """Without subnormal ones: training switches them off in the whole process."""
    return st.floats(low, high, allow_subnormal=False)


NUMBERS = st.lists(numbers(-10, 10), min_size=2, max_size=12)


@given(numbers(1e-3, 40), st.sampled_from([-1, 1]), numbers(1, 500))
def test_students_tail_is_scipys(t, sign, freedom):
    """Nearer to zero SciPy loses digits; there the closed forms below are the reference."""
    assert t_two_sided(sign * t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)


@given(numbers(-10, 10))
def test_students_tail_is_that_of_its_closed_forms(t):
    assert t_two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)), rel=1e-12)
    assert t_two_sided(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t), rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 4, 9, 30, 1000])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.999])
def test_students_quantile_is_scipys(probability, freedom):
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


@given(numbers(0.1, 50), numbers(0.1, 50), numbers(0, 1))
def test_the_incomplete_beta_function_is_scipys(a, b, x):
    from scipy.special import betainc

    assert incomplete_beta(a, b, x) == pytest.approx(betainc(a, b, x), rel=1e-8, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(NUMBERS)
def test_the_interval_of_a_mean_is_scipys(values):
    if statistics.stdev(values) <= ROUNDING:
        assert mean_interval(values) is None
        return
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((found.low, found.high), rel=1e-6, abs=1e-9)


def test_the_interval_of_accuracies_stays_between_none_and_all():
    assert accuracy_interval([0.5, 0.95]) == (0.0, 1.0)  # Student's has 2.1 points to each side
    assert accuracy_interval([0.90, 0.91, 0.92]) == mean_interval([0.90, 0.91, 0.92])


def test_a_single_value_has_no_interval():
    assert mean_interval([0.9]) is None


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(NUMBERS, NUMBERS)
def test_welchs_test_is_scipys(first, second):
    ours = welch(first, second)
    spread = max(max(first) - min(first), max(second) - min(second))
    if spread < 1e-6:
        assert ours is None or not math.isnan(ours.p)
        return
    theirs = stats.ttest_ind(second, first, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours is not None
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(st.lists(st.tuples(numbers(-10, 10), numbers(-10, 10)), min_size=2, max_size=12))
def test_the_test_of_pairs_is_scipys(pairs):
    first, second = zip(*pairs, strict=True)
    ours = paired_t(first, second)
    if statistics.stdev([b - a for a, b in pairs]) <= 1e-6:
        assert ours is None or not math.isnan(ours.p)
        return
    theirs = stats.ttest_rel(second, first)
    interval = theirs.confidence_interval(0.95)
    assert ours is not None and ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_one_value_or_no_spread_at_all_allows_no_test(first, second):
    assert welch(first, second) is None
    assert len(first) != len(second) or paired_t(first, second) is None


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_exact_test_is_the_binomial_one(only_first, only_second):
    trials = only_first + only_second
    expected = stats.binomtest(only_first, trials).pvalue if trials else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


@given(st.lists(numbers(0, 1), max_size=8))
def test_holms_values_are_never_smaller_and_keep_their_order(values):
    adjusted = holm(values)
    assert all(value <= now <= 1 for value, now in zip(values, adjusted, strict=True))
    assert sorted(range(len(values)), key=lambda i: (values[i], i)) == sorted(
        range(len(values)), key=lambda i: (adjusted[i], values[i], i)
    )


def test_holms_values_of_a_worked_example():
    # The k-th smallest of m is multiplied by m - k + 1, and none may be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.97, 0.99])
def test_so_many_images_without_a_mistake_show_an_accuracy_and_one_fewer_do_not(accuracy):
    needed = images_to_show(accuracy)
    assert wilson_interval(needed, needed)[0] >= accuracy > wilson_interval(needed - 1, needed - 1)[0]


@pytest.mark.parametrize(
    ("groups", "each", "truth", "alike"),
    [(15, 4, 0.82, 0.6), (8, 30, 0.9, 0.2), (30, 4, 0.98, 0.6), (100, 4, 0.9, 0.02)],
)
def test_an_interval_for_groups_has_the_truth_in_it_as_often_as_it_says(groups, each, truth, alike):
    random, part = np.random.default_rng(0), (1 - alike) / alike
    found = {"grouped": 0, "wilson": 0}
    for _ in range(1_000):
        hits = random.binomial(each, random.beta(truth * part, (1 - truth) * part, groups)).tolist()
        low, high = grouped_interval(hits, [each] * groups)
        found["grouped"] += low <= truth <= high
        low, high = wilson_interval(sum(hits), each * groups)
        found["wilson"] += low <= truth <= high
    assert 900 <= found["grouped"] <= 985
    assert found["wilson"] < 900 or alike < 0.1


def test_groups_that_are_all_right_count_once_each_and_one_group_tells_nothing():
    assert grouped_interval([4] * 10, [4] * 10) == pytest.approx(wilson_interval(10, 10))
    assert grouped_interval([0, 0, 0], [1, 1, 4]) == pytest.approx(wilson_interval(0, 2))
    assert grouped_interval([3], [4]) == grouped_interval([], []) == grouped_interval([0, 3], [0, 4]) == (0.0, 1.0)


def test_images_that_are_each_a_group_are_worth_nearly_what_they_are():
    low, high = grouped_interval([1] * 180 + [0] * 20, [1] * 200)
    assert (low, high) == pytest.approx(wilson_interval(180, 200), abs=0.002)
    assert grouped_interval([2, 2, 2, 2], [4, 4, 4, 4]) == pytest.approx(wilson_interval(8, 16))  # not worth more
