"""`thumbnet evaluate` of several runs, such as those of `train --seeds`: each is measured, then come the means over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.options import note, print_json, show
from thumbnet.errors import UserError
from thumbnet.words import counted, nats

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.judging.evaluation import Scores
    from thumbnet.judging.groups import Group
    from thumbnet.machine import Machine
    from thumbnet.runs.run import Run


def several_runs(paths: Sequence[Path]) -> "list[Run]":
    """The runs that several names stand for, or a folder of runs that is none itself; empty for whatever is one."""
    from thumbnet.runs.paths import find_runs
    from thumbnet.shipping.exported import exported_file

    [first, *others] = paths
    if not others and (not first.is_dir() or (first / "recipe.toml").is_file() or exported_file(first)):
        return []
    return find_runs(paths, tell=lambda line: note(line.removeprefix("note: ")))


def refuse_for_several(runs: "Sequence[Run]", asked: dict[str, Any]) -> None:
    """Raise `UserError` for what is measured or written of one run only."""
    for option, value in asked.items():
        if value:
            raise UserError(f"{option} is of one run, and these are {len(runs)}; name one of them")


def evaluate_several(
    runs: "list[Run]",
    *,
    split: str,
    views: int,
    uncertain: float,
    machine: "Machine",
    data_dir: Path | None,
    json: bool,
) -> None:
    """Measure each run, a line for each as it comes, and print the mean of each recipe over its seeds."""
    from thumbnet.judging.evaluation import measure
    from thumbnet.judging.groups import Group, members_of

    parts = by_recipe(runs)
    data = data_of_all(runs, split, views=views, uncertain=uncertain, data_dir=data_dir)
    options: dict[str, Any] = {"views": views, "uncertain": uncertain, "machine": machine, "data": data}
    found: dict[Path, Scores] = {}
    width = max(len(str(run.path)) for run in runs)
    if not json:
        show("\n".join(headline(runs, split, views, uncertain, width)), flush=True)
    for run in runs:
        tell = lambda told, run=run: note(f"{run.path}: {told}")  # noqa: E731
        found[run.path], _ = measure(run, split=split, say=tell, **options)
        if not json:
            show(row(run, found[run.path], width), flush=True)
    groups = [Group(name, members_of(part, lambda run: found[run.path].accuracy)) for name, part in parts.items()]
    if json:
        rows = [
            {"run": str(run.path), "seed": run.recipe.seed, "uncertain": uncertain, "test_openings": run.test_openings}
            | found[run.path].to_dict()
            for run in runs
        ]
        print_json({"split": split, "runs": rows, "groups": [group.to_dict() for group in groups]})
    else:
        show("\n".join(["", *(mean_line(group) for group in groups)]))


def by_recipe(runs: "Sequence[Run]") -> "dict[str, list[Run]]":
    """The runs of each recipe, by the name of their group. Raises `UserError` where they cannot be averaged."""
    from thumbnet.judging.comparison import check_named_once, check_same_data, check_same_folds
    from thumbnet.judging.groups import check_drawn_once
    from thumbnet.recipes import names_of_groups

    check_named_once([run.path for run in runs])
    check_same_data(runs)
    parts: dict[str, list[Run]] = {}
    for name, run in zip(names_of_groups([run.recipe for run in runs]), runs, strict=True):
        parts.setdefault(name, []).append(run)
    check_same_folds(parts.values())
    for part in parts.values():
        check_drawn_once(part)
    return parts


def data_of_all(runs: "Sequence[Run]", split: str, *, views: int, uncertain: float, data_dir: Path | None) -> "Dataset":
    """The data that all are measured on, those of the first run; what cannot be measured is refused before anything is opened."""
    from thumbnet.judging.evaluation import check_part, check_split, check_views

    check_part(uncertain)
    for run in runs:
        run.require_finished()
        try:
            check_views(views, mirrored=run.recipe.flip)
        except UserError as error:
            raise UserError(f"{run.path}: {error}") from error
    data = runs[0].load_data(data_dir=data_dir)
    for run in runs:
        check_split(run, run.check_data(data, split=split), split)
    return data


def headline(runs: "Sequence[Run]", split: str, views: int, uncertain: float, width: int) -> list[str]:
    """What is measured, and the names of the columns."""
    from thumbnet.measuring.results import views_in_words

    top5 = "   top-5" if len(runs[0].classes) > 5 else ""
    return [
        f"{counted(len(runs), 'run')} on the {split} images of {runs[0].data['name']}, {views_in_words(views, uncertain)}",
        f"{'run':{width}}  seed  images  accuracy  {'95 % interval':<19}{top5}    loss",
    ]


def row(run: "Run", scores: "Scores", width: int) -> str:
    """One run; how often its test set was opened, where it was."""
    interval = "{:.2%} to {:.2%}".format(*scores.interval95)
    top5 = f"  {scores.top5:>6.2%}" if len(scores.classes) > 5 else ""
    often = f"  (test set opened {counted(run.test_openings, 'time')})" if scores.split == "test" else ""
    return (
        f"{run.path!s:{width}}  {run.recipe.seed:>4}  {scores.images:>6,}  {scores.accuracy:>8.2%}  {interval:<19}{top5}  "
        f"{nats(scores.loss)}{often}"
    )


def mean_line(group: "Group") -> str:
    """`general: mean accuracy 90.12% (sd 0.30, 95 % interval of the mean 89.38% to 90.87%), n = 3`."""
    from thumbnet.judging.claims import cells

    shown = cells(group, "accuracy")
    alike = " (the same for all)" if group.n > 1 else ""
    spread = f" (sd {shown['sd']}, 95 % interval of the mean {shown['interval']})" if group.interval95 else alike
    return f"{group.name}: mean accuracy {shown['mean']}{spread}, n = {group.n}"
