"""A recipe for any set of small images: what `train` takes when nothing else is asked for."""

from thumbnet.recipes.recipe import Recipe


def general() -> Recipe:
    """A small residual network, SGD, linear decay. `thumbnet train fashion-mini`, `thumbnet train path/to/folder`."""
    return Recipe(
        name="general",
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
