"""How likely a label is wrong, by what networks say of images that they never saw.

Such a network is unsure of many images, and surely wrong about some: to doubt every label that it surely contradicts is to doubt
one in sixteen of CIFAR-10's. So the question is turned round. How often a label is wrong, and what it is then, is counted
among the images that the networks are surest of (after Patrini et al. 2017, https://arxiv.org/abs/1609.03683). This noise is
removed from the probabilities, and Bayes' rule weighs a wrong label against a hard image. docs/findings.md has what it finds.
"""
# Shapes: N images, K classes.

import torch
from torch import Tensor

SUREST = 0.1  # of the images taken for a class, among which its labels are counted: fewer are too few, others less sure
FEWEST = 30  # images to count among, where that part is less
PRIOR_IMAGES = 20  # counted beforehand, of which
PRIOR_WRONG = (
    0.01  # are wrong: between the 0.15 % of MNIST and the 5.9 % of CIFAR-100, https://arxiv.org/abs/2103.14749
)
STEPS = 50  # of Richardson and Lucy's iteration; a hundred list the same images of CIFAR-10 with 2 and 20 % wrong


def chances_of_wrong(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """N: how likely each label is wrong, in [0, 1]; N: the class that the image likeliest shows then.

    By out-of-sample `probabilities` N K. That an image shows a class and is labelled as it is has the probability that it shows
    the class, times how often that class is labelled so.
    """
    noise = noise_of_labels(probabilities, labels)
    joint = without_noise(probabilities, noise) * noise.T[labels]  # N K
    right = joint.gather(1, labels[:, None])[:, 0] / joint.sum(1)
    return (1 - right).clamp(0, 1), joint.scatter(1, labels[:, None], -1.0).argmax(1)


def noise_of_labels(probabilities: Tensor, labels: Tensor) -> Tensor:
    """K K: of the images that show class i (row), the part whose label is j (column), estimated from the surest of them."""
    classes = probabilities.shape[1]
    sure, named = probabilities.max(1)
    rows = []
    for kind in range(classes):
        members = (named == kind).nonzero().flatten()
        many = max(FEWEST, round(SUREST * len(members)))
        surest = members[sure[members].argsort(descending=True, stable=True)[:many]]
        counts = torch.bincount(labels[surest], minlength=classes).to(probabilities.dtype)
        right = (counts[kind] + PRIOR_IMAGES * (1 - PRIOR_WRONG)) / (len(surest) + PRIOR_IMAGES)
        wrong = counts + 1  # of the other classes, which is never impossible
        wrong[kind] = 0
        row = (1 - right) * wrong / wrong.sum()
        row[kind] = right
        rows.append(row)
    return torch.stack(rows)


def without_noise(probabilities: Tensor, noise: Tensor) -> Tensor:
    """N K: what images show, by probabilities N K of their labels, for labels that are as wrong as `noise` K K says.

    The mixtures of its rows that come nearest to the probabilities, by the iteration of Richardson 1972,
    https://doi.org/10.1364/JOSA.62.000055, and Lucy 1974: never negative, as the inverse of `noise`, which has no zero, would
    make some.
    """
    shown = probabilities
    for _ in range(STEPS):
        shown = shown * ((probabilities / (shown @ noise)) @ noise.T)
    return shown
