"""Calibration: whether a network that says 80 % is right 80 times in 100, and what to do where it is not."""
# Shapes: N images, K classes. Confidence is the probability of the likeliest class.

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thumbnet.judging.intervals import count_of, interval_of, part_of
from thumbnet.judging.thresholds import Threshold

BINS = 15  # as Guo et al. 2017, https://arxiv.org/abs/1706.04599
COLDEST, HOTTEST = 0.05, 20.0  # temperatures beyond these come from logits that say nothing
BELIEF = 0.5  # of the logarithm of a temperature, around 0: Guo et al. 2017 find 1.0 to 2.6 for networks for CIFAR


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy, before and after dividing the logits by `temperature`. Errors are in [0, 1]."""

    temperature: float  # fitted on validation images; 1 where there were none
    error: float  # expected calibration error, bins of equal width
    error_equal_mass: float  # the same with bins of equally many images
    loss: float  # cross-entropy in nats
    error_after: float
    error_equal_mass_after: float
    loss_after: float


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one stretch: how many, how sure, how often right."""

    images: int
    confidence: float
    accuracy: float
    interval95: tuple[float, float]  # of the accuracy


def calibration(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Calibration:
    """Errors of logits N K against labels N, as they are and at `temperature`."""
    errors = []
    for scaled in (logits.double(), logits.double() / temperature):
        confidence, correct = confidence_and_hits(scaled, labels)
        errors.append(
            (
                expected_calibration_error(confidence, correct),
                expected_calibration_error(confidence, correct, equal_mass=True),
                F.cross_entropy(scaled, labels).item(),
            )
        )
    return Calibration(temperature, *errors[0], *errors[1])


def confidence_and_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of the likeliest class, float N, and whether it was right, bool N."""
    confidence, predicted = logits.softmax(1).max(1)
    return confidence, predicted == labels


def expected_calibration_error(
    confidence: Tensor, correct: Tensor, *, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Mean distance of confidence and accuracy over bins, weighted by their images; in [0, 1].

    Bins are of equal width (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602) or hold equally many images
    (Nixon et al. 2019, https://arxiv.org/abs/1904.01685).
    """
    if len(confidence) == 0:
        return 0.0
    places = bin_of(confidence, bins, equal_mass=equal_mass)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, places, confidence.double() - correct.double())
    return gaps.abs().sum().item() / len(confidence)


def bin_of(confidence: Tensor, bins: int, *, equal_mass: bool) -> Tensor:
    """int64 N: the bin of each image. Bins of equal width are open below and closed above, as in the papers."""
    if equal_mass:
        ranks = confidence.argsort(stable=True).argsort(stable=True)
        return ranks * bins // len(confidence)
    return (confidence * bins).ceil().long().clamp(1, bins) - 1


def reliability(confidence: Tensor, correct: Tensor, groups: Tensor | None = None, *, bins: int = BINS) -> list[Bin]:
    """The bins of equal width that hold images, from unsure to sure: the points of a reliability diagram."""
    places = bin_of(confidence, bins, equal_mass=False)
    rows = []
    for place in range(bins):
        inside = places == place
        if images := int(inside.sum()):
            hits, mean = correct[inside], confidence[inside].double().mean().item()
            rows.append(Bin(images, mean, int(hits.sum()) / images, interval_of(hits, part_of(groups, inside))))
    return rows


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the cross-entropy of logits N K / temperature (Guo et al. 2017), drawn towards 1.

    Its logarithm is taken to be normal around 0 beforehand (`BELIEF`), which some ten images outweigh: three images, one of them
    right, or twelve without a mistake, would otherwise ask for any certainty. The slope of the two together is bisected; the
    answer lies in [COLDEST, HOTTEST]. One number cannot change which class is likeliest.
    """
    logits = logits.double()
    right = logits.gather(1, labels[:, None])[:, 0]  # N

    def slope(inverse: float) -> float:  # by the logarithm of the inverse temperature
        expected = (F.softmax(logits * inverse, dim=1) * logits).sum(1)  # N
        return inverse * (expected - right).sum().item() + math.log(inverse) / BELIEF**2

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):  # halves the ratio of the ends each time, to the last digits
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return 1 / (low * high) ** 0.5


def risk_coverage(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """(coverage, risk), float64 N each: the error among the surest 1, 2, ... N images, and what part of all they are.

    El-Yaniv & Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html
    """
    order = confidence.argsort(descending=True, stable=True)
    counts = torch.arange(1, len(order) + 1, dtype=torch.float64)
    return counts / len(order), (~correct[order]).double().cumsum(0) / counts


def threshold_for(confidence: Tensor, correct: Tensor, target: float, groups: Tensor | None = None) -> Threshold | None:
    """The lowest confidence from which on accuracy is at least `target`, or None where no images are that sure.

    On these images: on others the same confidence gives less about as often as more, and `answers_from` tells what. Images of one
    confidence are answered together or not at all.
    """
    _, risk = risk_coverage(confidence, correct)
    ordered = confidence.sort(descending=True, stable=True).values
    last_of_its_kind = torch.ones(len(ordered), dtype=torch.bool)
    last_of_its_kind[:-1] = ordered[:-1] != ordered[1:]
    fits = ((1 - risk >= target) & last_of_its_kind).nonzero().flatten()
    if len(fits) == 0:
        return None
    return answers_from(confidence, correct, ordered[int(fits[-1])].item(), target, groups)


def answers_from(
    confidence: Tensor, correct: Tensor, threshold: float, target: float, groups: Tensor | None = None
) -> Threshold:
    """What answering only from the confidence `threshold` on gives on these images; accuracy 0 of no images."""
    answered = confidence >= threshold
    images, hits, groups = int(answered.sum()), correct[answered], part_of(groups, answered)
    return Threshold(
        target=target,
        confidence=threshold,
        coverage=images / len(confidence),
        accuracy=int(hits.sum()) / max(1, images),
        interval95=interval_of(hits, groups),
        images=images,
        groups=count_of(groups),
    )
