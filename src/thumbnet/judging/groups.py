"""Groups of runs: one recipe over several seeds, and what each of them reached."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, Literal

from thumbnet.errors import UserError
from thumbnet.judging.evaluation import score_predictions
from thumbnet.judging.statistics import accuracy_interval, mean_interval, standard_deviation
from thumbnet.runs.run import Run

Metric = Literal["accuracy", "balanced_accuracy", "top5", "loss"]
SplitName = Literal["validation", "test"]


@dataclass(frozen=True)
class Member:
    """One run of a group and what it reached."""

    path: str
    seed: int
    value: float
    test_openings: int
    train_seconds: float


@dataclass(frozen=True)
class Group:
    """Runs of one recipe on one data set that differ in their seed alone."""

    name: str
    members: tuple[Member, ...]
    metric: Metric = "accuracy"

    @property
    def values(self) -> list[float]:
        return [member.value for member in self.members]

    @property
    def n(self) -> int:
        return len(self.members)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def sd(self) -> float | None:
        return standard_deviation(self.values) if self.n > 1 else None

    @property
    def interval95(self) -> tuple[float, float] | None:
        """Student's, of the mean; None for a single run, and where all runs gave the same number."""
        if not self.sd:
            return None
        return mean_interval(self.values, lowest=0.0) if self.metric == "loss" else accuracy_interval(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with n, mean, sd and interval."""
        return asdict(self) | {"n": self.n, "mean": self.mean, "sd": self.sd, "interval95": self.interval95}

    @property
    def seconds(self) -> float:
        """Median of the training clocks."""
        return median(member.train_seconds for member in self.members)


def members_of(runs: Sequence[Run], value: Callable[[Run], float]) -> tuple[Member, ...]:
    """What each seed reached: one run, or the mean over the folds of one seed, which share images and are no draws apart.

    Raises `UserError` where one seed is there twice, and what `value` raises.
    """
    check_drawn_once(runs)
    members = []
    for seed, part in runs_by_seed(runs).items():
        values = [value(run) for run in part]
        openings, seconds = max(run.test_openings for run in part), sum(run.summary["train_seconds"] for run in part)
        members.append(Member(str(part[0].path), seed, fmean(values), openings, seconds))
    return tuple(members)


def check_drawn_once(runs: Sequence[Run]) -> None:
    """Raise `UserError` where one seed of a recipe is there twice, since the same run twice is no second draw."""
    for seed, part in runs_by_seed(runs).items():
        if len({run.recipe.fold for run in part}) < len(part):
            raise UserError(f"{part[0].path} and {part[1].path} have the same recipe and seed {seed}; name one of them")


def runs_by_seed(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """The runs of each seed: one, or one for each fold."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(run.recipe.seed, []).append(run)
    return found


def value_of(run: Run, split: str, metric: str) -> float:
    """The metric on a split, from the summary or the last evaluation with one view; of older runs perhaps from their answers."""
    if split == "validation":
        value = run.summary.get(f"validation_{metric}")
        if value is None and metric == "balanced_accuracy" and run.summary["validation_accuracy"] is not None:
            return balanced_accuracy_of(run, split)
        if value is None:
            raise UserError(
                f"{run.path} was trained on all its images, so it has no validation {metric}; try --split test"
            )
        return value
    if row := evaluation_of(run, split):
        older = metric == "balanced_accuracy" and metric not in row
        return balanced_accuracy_of(run, split) if older else row[metric]
    raise UserError(
        f"{run.path} was not measured on its {split} images; run: thumbnet evaluate {run.path} --split {split}"
    )


def balanced_accuracy_of(run: Run, split: str) -> float:
    """By the predictions that were kept, of a run from before it was written down."""
    return score_predictions(run.predictions(split)).balanced_accuracy


def evaluation_of(run: Run, split: str) -> dict[str, Any] | None:
    """The last measurement of the split with one view."""
    return next((row for row in reversed(run.evaluations) if row["split"] == split and row["views"] == 1), None)
