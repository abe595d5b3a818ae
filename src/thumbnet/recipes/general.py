"""Recipes for any set of small images: what `train` takes when nothing else is asked for."""

import dataclasses

from thumbnet.recipes import cifar10
from thumbnet.recipes.recipe import Recipe


def general() -> Recipe:
    """The network of the fast CIFAR recipes in a size for thousands of images. `thumbnet train path/to/folder`."""
    return dataclasses.replace(
        cifar10.FAST,
        name="general",
        widths=(32, 128, 256),
        epochs=11,
        batch_size=100,
        learning_rate=0.1,
        resolution=(0.75, 1.0),
        label_smoothing=0.1,
        crop=1,
        views=1,
        uncertain=1.0,
    )


def fashion_mnist() -> Recipe:
    """94 % of Fashion-MNIST in two minutes on two cores. `thumbnet train fashion-mnist`.

    `general` with the larger batches that ten times as many images allow.
    """
    return dataclasses.replace(general(), name="fashion-mnist-94", epochs=10, batch_size=250, learning_rate=0.16)


def mnist() -> Recipe:
    """Handwritten digits, of which there are no mirror images: 99.6 % in 90 seconds on two cores. `thumbnet train mnist`."""
    return dataclasses.replace(fashion_mnist(), name="mnist-99", flip=False, alternate_flip=False, crop=2)


def plain_adamw() -> Recipe:
    """AdamW with decoupled decay, for networks that SGD trains badly. `thumbnet train path/to/folder --recipe plain-adamw`.

    What `train` takes for `--model vision_transformer`.
    """
    return Recipe(
        name="plain-adamw",
        model="vision_transformer",
        epochs=12,
        batch_size=64,
        optimizer="adamw",
        learning_rate=0.001,
        schedule="cosine",
        warmup=0.1,
        weight_decay=0.05,
        crop=1,
    )


def plain() -> Recipe:
    """SGD with Nesterov momentum and weight decay, for any model. `thumbnet train path/to/folder --recipe plain`.

    What `train` takes where another `--model` is asked for, since the rates of the fast recipes are for the speednets.
    """
    return Recipe(
        name="plain",
        model="small_resnet",
        epochs=12,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="linear",
        warmup=0.2,
        l2=5e-4,
        crop=1,
    )
