"""Recipes for CIFAR-10."""

from thumbnet.recipes.recipe import Recipe


def classic() -> Recipe:
    """The report's ResNet-50 with full pre-activation. `thumbnet train cifar10 --recipe cifar10-classic`.

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
