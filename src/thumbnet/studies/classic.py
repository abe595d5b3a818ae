"""The original report as a study: every row of it, with the numbers it states beside ours."""

from dataclasses import dataclass

from thumbnet.errors import UserError
from thumbnet.recipes import recipe as named_recipe
from thumbnet.studies.cells import Variant
from thumbnet.studies.study import Study

EPOCHS = 160  # of the report


@dataclass(frozen=True)
class ReportedRow:
    """A row of the report: what it trained, and the test numbers and words it gives. Accuracies are fractions."""

    variant: str
    figure: str
    accuracy: float | None
    top5: float | None
    loss: float | None  # with the L2 penalty, as Keras reports losses
    gap: str  # of training and validation, in points
    said: str


REPORTED = (
    ReportedRow("CIFAR-10, pre-activation", "4, 5", 0.8340, None, 0.6280, "", "over an hour on its GPU"),
    ReportedRow("CIFAR-10, pre-activation, L2 0.01", "1", None, None, None, "", "converges to about 65 %"),
    ReportedRow("CIFAR-10, post-activation", "2, 3", 0.8170, None, 0.6549, "", "converges more slowly, slightly lower"),
    ReportedRow("CIFAR-100, no dropout", "", None, None, None, "almost 10", "about 79 % top-5"),
    ReportedRow("CIFAR-100, dropout before the dense layer", "6, 7", None, 0.8004, 2.1422, "about 7", ""),
    ReportedRow("CIFAR-100, dropout in three places", "8, 9", None, 0.8026, 2.0996, "about 5", ""),
)

CHANGES: dict[str, dict[str, object]] = {  # from the classic recipe of the data set that the row's name begins with
    "CIFAR-10, pre-activation": {},
    "CIFAR-10, pre-activation, L2 0.01": {"l2": 0.01},
    "CIFAR-10, post-activation": {"model": "resnet50_classic"},
    "CIFAR-100, no dropout": {"dropout": (0.0, 0.0, 0.0)},
    "CIFAR-100, dropout before the dense layer": {"dropout": (0.0, 0.0, 0.2)},
    "CIFAR-100, dropout in three places": {},
}


def classic_study(*, scale: float = 1.0, seeds: int = 1, only: str | None = None) -> Study:
    """Every row of the report's experiments, epochs times `scale`; the drops of the rate lie at parts of the run and follow.

    `only` keeps the rows of one data set. Raises `UserError` for a scale of no epoch or beyond 1.
    """
    epochs = round(EPOCHS * scale)
    if not 0 < scale <= 1 or epochs < 1:
        raise UserError(f"scale is {scale:g}; give a part of the report's {EPOCHS} epochs, {1 / EPOCHS:.4f} to 1")
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; give 1 or more")
    variants = []
    for row in REPORTED:
        dataset = "cifar100" if row.variant.startswith("CIFAR-100") else "cifar10"
        if only in (None, dataset):
            made = named_recipe(f"{dataset}-classic", epochs=epochs, **CHANGES[row.variant])
            variants.append(Variant(row.variant, dataset, made, stated=stated(row)))
    if not variants:
        raise UserError(f"the report has no rows on {only!r}; choose cifar10 or cifar100")
    return Study(
        name=f"classic-{epochs}-epochs",
        variants=tuple(variants),
        seeds=tuple(range(seeds)),
        metrics={"cifar10": "accuracy", "cifar100": "top5"},  # what the report measures
        about=(
            f"The report's experiments with {epochs} of its {EPOCHS} epochs. The report gives numbers of the test images; "
            "ours are of the validation images, since a study never opens the test set."
        ),
    )


def stated(row: ReportedRow) -> dict[str, str]:
    """What the report says of a row, by column; "-" where it says nothing."""
    measured = row.accuracy if row.accuracy is not None else row.top5
    columns = {
        "reported, test": "" if measured is None else f"{measured:.2%}",
        "reported loss": "" if row.loss is None else f"{row.loss:.4f}",
        "reported gap": row.gap,
        "figures": row.figure,
        "in words": row.said,
    }
    return {name: said or "-" for name, said in columns.items()}
