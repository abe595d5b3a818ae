"""Comparing runs: what they must share, every pair of their groups, and what may be claimed (worded in claims.py)."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from thumbnet.errors import UserError
from thumbnet.judging import claims
from thumbnet.judging.groups import Group, Metric, SplitName, evaluation_of, members_of, runs_by_seed, value_of
from thumbnet.judging.pairs import Pair, adjusted, compare_two, not_for_other_images
from thumbnet.recipes import names_of_groups
from thumbnet.runs.paths import is_answers
from thumbnet.runs.run import Run

ALIKE = ("device", "precision", "torch", "thumbnet")  # of a run's environment; what else differs is told as a warning


@dataclass(frozen=True)
class Comparison:
    """Groups in the order they were given, what they share, and every pair."""

    dataset: str
    split: str
    metric: str
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """What can be said: of every pair, or of the one group there is."""
        return [pair.sentence for pair in self.pairs] or [claims.on_one(group, self.metric) for group in self.groups]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; groups with mean, sd and interval."""
        groups = [group.to_dict() for group in self.groups]
        pairs = [asdict(pair) | {"p": pair.p, "claimed": pair.claimed} for pair in self.pairs]
        return asdict(self) | {"groups": groups, "pairs": pairs, "sentences": self.sentences}


def compare(
    runs: Sequence[Run | str | Path], *, split: SplitName = "validation", metric: Metric = "accuracy"
) -> Comparison:
    """Groups finished runs by recipe and data, and compares every two groups.

    On "validation" the numbers are those that training ended with; on "test" those of the last `evaluate --split test` with
    one view. Raises `UserError` for fewer than two runs, unfinished ones, different data or classes, or numbers not yet
    measured.
    """
    if file := next((it for it in runs if not isinstance(it, Run) and is_answers(Path(it))), None):
        raise UserError(f"{file} is a file of answers; thumbnet.compare_answers compares such with runs")
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    check_comparable(opened)
    named = list(zip(names_of_groups([run.recipe for run in opened]), opened, strict=True))
    return compare_groups(named, split=split, metric=metric)


def compare_groups(
    named: Sequence[tuple[str, Run]],
    *,
    split: SplitName = "validation",
    metric: Metric = "accuracy",
    baseline: bool = False,
    looks: Sequence[int] = (),
) -> Comparison:
    """Compares runs under the group names given with them: every pair, or each with the first where `baseline`.

    `looks`: with how many seeds of a group it was judged before there were these; that is told as a warning.

    Raises `UserError` where the runs are not of the same data and images, or hold out different folds.
    """
    runs: dict[str, list[Run]] = {}
    for name, run in named:
        runs.setdefault(name, []).append(run)
    everyone = [run for _, run in named]
    check_same_data(everyone)
    check_same_folds(runs.values())
    check_same_lists(runs.values())
    if split == "test":
        check_same_test_images(everyone)
    value = partial(value_of, split=split, metric=metric)
    groups = tuple(Group(name, members_of(part, value), metric) for name, part in runs.items())
    chosen = [(groups[0], other) for other in groups[1:]] if baseline else list(combinations(groups, 2))
    opened_often = [m.path for group in groups for m in group.members if split == "test" and m.test_openings > 1]
    if opened_often:
        pairs = [Pair(a.name, b.name, reason=claims.OPENED_OFTEN) for a, b in chosen]
    else:
        pairs = adjusted([compare_two(a, b, runs[a.name], runs[b.name], split, metric) for a, b in chosen])
    by_name = {group.name: group for group in groups}
    pairs = [
        replace(pair, sentence=claims.on_pair(pair, by_name[pair.first], by_name[pair.second], metric))
        for pair in pairs
    ]
    return Comparison(
        dataset=named[0][1].data["name"],
        split=split,
        metric=metric,
        groups=groups,
        pairs=tuple(pairs),
        warnings=tuple(
            claims.warnings(groups, pairs, opened_often, not_for_other_images(pairs), unlike(everyone), looks)
        ),
    )


# ---------------------------------------------------------------- what they must share


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise `UserError` unless there are two runs or more, all finished, and each named once."""
    if len(runs) < 2:
        raise UserError("name two runs or more to compare; thumbnet evaluate judges one")
    check_named_once([run.path for run in runs])
    for run in runs:
        run.require_finished()


def check_named_once(paths: Sequence[Path]) -> None:
    """Raise `UserError` where two paths are of one run or file."""
    named: dict[Path, Path] = {}
    for path in paths:
        real = path.resolve()
        if real in named:
            same = f"{path} is named twice" if named[real] == path else f"{named[real]} and {path} are the same run"
            raise UserError(f"{same}; name each run once")
        named[real] = path


def check_same_data(runs: Sequence[Run]) -> None:
    """Raise `UserError` unless all runs are of the same classes and training images."""
    first = runs[0]
    for run in runs[1:]:
        if run.classes != first.classes:
            raise UserError(f"{first.path} and {run.path} have different classes; only runs on the same data compare")
        if not run.data.same_training_images(first.data):
            raise UserError(
                f"{first.path} was trained on {first.data.told_apart}, {run.path} on {run.data.told_apart}; "
                "only runs on the same data compare"
            )


def check_same_test_images(runs: Sequence[Run]) -> None:
    """Raise `UserError` where runs were measured on test images of data that had changed in between."""
    seen: dict[str, Path] = {}
    for run in runs:
        if row := evaluation_of(run, "test"):
            seen.setdefault(row.get("fingerprint", run.data["fingerprint"]), run.path)
    if len(seen) > 1:
        first, second = list(seen.values())[:2]
        raise UserError(f"{first} and {second} were measured on different test images; evaluate them again on the same")


def check_same_folds(groups: Iterable[Sequence[Run]]) -> None:
    """Raise `UserError` where, of runs that cut their images into as many folds, seeds hold out different ones.

    The mean over some folds and the mean over others differ by their images.
    """
    held_out: dict[int, tuple[set[int], Path]] = {}
    for group in groups:
        for part in runs_by_seed(group).values():
            folds, count = {run.recipe.fold for run in part}, part[0].recipe.folds
            others, path = held_out.setdefault(count, (folds, part[0].path))
            if count and folds != others:
                raise UserError(
                    f"seed {part[0].recipe.seed} of {part[0].path} has the folds {listed(folds)} of {count}, that of {path} "
                    f"{listed(others)}; give the same folds of every seed"
                )


def check_same_lists(groups: Iterable[Sequence[Run]]) -> None:
    """Raise `UserError` where runs of one recipe left out other images, since their list was changed in between."""
    for first, *others in groups:
        for run in others:
            if run.environment.get("leave_out_sha256") != first.environment.get("leave_out_sha256"):
                raise UserError(
                    f"{first.path} and {run.path} left out other images by the same list, {Path(run.recipe.leave_out).name}, "
                    "which was changed in between; give other lists other names, and train again"
                )


def listed(numbers: Iterable[int]) -> str:
    """`0, 1 and 2`."""
    *most, last = map(str, sorted(numbers))
    return f"{', '.join(most)} and {last}" if most else last


def unlike(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What the runs' machines and versions differ in, of `ALIKE`: the values of each."""
    values = {name: sorted({str(run.environment.get(name)) for run in runs}) for name in ALIKE}
    return {name: found for name, found in values.items() if len(found) > 1}
