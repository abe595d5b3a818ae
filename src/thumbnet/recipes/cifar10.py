"""Recipes for CIFAR-10."""

import dataclasses

from thumbnet.recipes.recipe import Recipe

# What the fast recipes share: the plan of airbench (Jordan 2024, https://arxiv.org/abs/2404.00498, and its later version with
# Muon, https://github.com/KellerJordan/cifar10-airbench), at resolutions that grow during the run. The rates were chosen on
# 5,000 held-out training images; docs/findings.md has what was tried.
FAST = Recipe(
    name="cifar10-94",
    model="speednet_slim",
    optimizer="muon",
    batch_size=500,
    learning_rate=0.14,
    head_rate=0.33,
    momentum=0.6,
    schedule="linear",
    alternate_flip=True,
    views=6,
    uncertain=0.25,
)


def to_83() -> Recipe:
    """The original report's 83.4 % in about ten seconds, with six views. `thumbnet train cifar10 --recipe cifar10-83`."""
    return dataclasses.replace(
        FAST,
        name="cifar10-83",
        widths=(32, 128, 256),
        epochs=1.4,
        batch_size=250,
        learning_rate=0.24,
        resolution=(0.5, 0.75),
        label_smoothing=0.2,
    )


def to_94() -> Recipe:
    """94 % in two to three minutes. `thumbnet train cifar10`."""
    return dataclasses.replace(
        FAST,
        name="cifar10-94",
        model="speednet",
        epochs=10,
        hardest=0.7,
        resolution=(0.75, 0.875, 1.0),
        label_smoothing=0.1,
        crop=2,
        jitter=0.13,
        uncertain=0.5,
    )


def to_94_on_gpu() -> Recipe:
    """94 %, or a hair less, in a second and a half on an H100. `thumbnet train cifar10 --recipe cifar10-94-gpu`.

    `cifar10-94` in larger batches, with the constants that hiverge (https://github.com/hiverge/cifar10-speedrun) and those after
    it found for them.
    """
    return dataclasses.replace(
        to_94(),
        name="cifar10-94-gpu",
        epochs=10,
        hardest=1.0,
        batch_size=1_500,
        learning_rate=0.2255,
        head_rate=0.54,
        momentum=0.65,
        label_smoothing=0.09,
        stem_until=0.05,
    )


def to_96() -> Recipe:
    """96 %, less a hair, within an hour on two cores. `thumbnet train cifar10 --recipe cifar10-96`."""
    return dataclasses.replace(
        FAST,
        name="cifar10-96",
        model="speednet",
        widths=(128, 384, 512),
        depth=3,
        epochs=47,
        learning_rate=0.12,
        resolution=(0.75, 0.875, 1.0),
        label_smoothing=0.2,
        crop=4,
        cutout=12,
        uncertain=1.0,
    )


def classic() -> Recipe:
    """The original report's ResNet-50 with full pre-activation. `thumbnet train cifar10 --recipe cifar10-classic`.

    The post-activation net of the report's figures 2 and 3: add `--model resnet50_classic`. Its failed first attempt
    (figure 1): add `--l2 0.01`. Fewer epochs scale the drops of the learning rate with them.
    """
    return Recipe(
        name="cifar10-classic",
        model="preact_resnet50_classic",
        epochs=160,
        batch_size=64,
        optimizer="adam",
        learning_rate=1e-3,
        epsilon=1e-7,  # Keras's default
        schedule="steps",
        drop_after=(80 / 160, 120 / 160, 160 / 160, 180 / 160),  # the report's epochs, as fractions of its 160
        drop_factors=(1e-1, 1e-2, 1e-3, 5e-4),
        l2=1e-3,
        penalize="stages",
        normalize="none",
        flip=True,
        zoom=0.2,
        shift=0.15,
        validation=0.2,
    )


def resnet18() -> Recipe:
    """ResNet-18 as the field trains it. `thumbnet train cifar10 --recipe cifar10-resnet18`.

    Batch 128, SGD with Nesterov momentum 0.9 and weight decay 5e-4 (l2 is half of it), crop 4 and flip: the setting of
    Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146, section 3, with a cosine in place of steps.
    """
    return Recipe(
        name="cifar10-resnet18",
        model="resnet18",
        epochs=30,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="cosine",
        warmup=0.1,
        l2=2.5e-4,
        crop=4,
    )
