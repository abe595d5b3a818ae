"""`thumbnet evaluate FOLDER` of several runs, such as those of `train --seeds`: each is measured, then come their means."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.options import note, print_json
from thumbnet.errors import UserError
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.judging.evaluation import Scores
    from thumbnet.judging.groups import Group
    from thumbnet.machine import Machine
    from thumbnet.runs.run import Run


def runs_below(path: Path) -> "list[Run]":
    """The finished runs in a folder that is none itself; empty for everything else, which `evaluate` takes as one."""
    from thumbnet.runs.paths import find_runs
    from thumbnet.shipping.exported import exported_file

    if not path.is_dir() or (path / "recipe.toml").is_file() or exported_file(path):
        return []
    return find_runs([path], tell=lambda line: note(line.removeprefix("note: ")))


def refuse_for_several(path: Path, asked: dict[str, Any]) -> None:
    """Raise `UserError` for what is measured or written of one run only."""
    for option, value in asked.items():
        if value:
            raise UserError(f"{option} is of one run, and {path} holds several; name one of them")


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
    from thumbnet.judging.comparison import check_same_data, check_same_folds
    from thumbnet.judging.evaluation import measure
    from thumbnet.judging.groups import Group, check_drawn_once, members_of
    from thumbnet.recipes import names_of_groups

    check_same_data(runs)
    parts: dict[str, list[Run]] = {}
    for name, run in zip(names_of_groups([run.recipe for run in runs]), runs, strict=True):
        parts.setdefault(name, []).append(run)
    check_same_folds(parts.values())
    for part in parts.values():  # before a test set is opened
        check_drawn_once(part)
    options: dict[str, Any] = {"views": views, "uncertain": uncertain, "machine": machine, "data_dir": data_dir}
    found: dict[Path, Scores] = {}
    width = max(len(str(run.path)) for run in runs)
    if not json:
        print("\n".join(headline(runs, split, views, uncertain, width)), flush=True)
    for run in runs:
        found[run.path], _ = measure(run, split=split, say=note, **options)
        if not json:
            print(row(run, found[run.path], width), flush=True)
    groups = [Group(name, members_of(part, lambda run: found[run.path].accuracy)) for name, part in parts.items()]
    if json:
        rows = [
            {"run": str(run.path), "seed": run.recipe.seed, "uncertain": uncertain, "test_openings": run.test_openings}
            | found[run.path].to_dict()
            for run in runs
        ]
        print_json({"split": split, "runs": rows, "groups": [as_object(group) for group in groups]})
    else:
        print("\n".join(["", *(mean_line(group) for group in groups)]))


def headline(runs: "list[Run]", split: str, views: int, uncertain: float, width: int) -> list[str]:
    """What is measured, and the names of the columns."""
    from thumbnet.measuring.results import views_in_words

    return [
        f"{counted(len(runs), 'run')} on the {split} images of {runs[0].data['name']}, {views_in_words(views, uncertain)}",
        f"{'run':{width}}  seed  accuracy  95 % interval         top-5    loss",
    ]


def row(run: "Run", scores: "Scores", width: int) -> str:
    """One run; how often its test set was opened, where it was."""
    interval = "{:.2%} to {:.2%}".format(*scores.interval95)
    often = f"  (test set opened {counted(run.test_openings, 'time')})" if scores.split == "test" else ""
    return (
        f"{run.path!s:{width}}  {run.recipe.seed:>4}  {scores.accuracy:>8.2%}  {interval:<20}  {scores.top5:>6.2%}  "
        f"{scores.loss:.4f}{often}"
    )


def mean_line(group: "Group") -> str:
    """`general: mean 90.12% (sd 0.30, 95 % interval of the mean 89.38% to 90.87%), n = 3`."""
    from thumbnet.judging.claims import cells

    shown = cells(group, "accuracy")
    spread = "" if group.interval95 is None else f" (sd {shown['sd']}, 95 % interval of the mean {shown['interval']})"
    return f"{group.name}: mean accuracy {shown['mean']}{spread}, n = {group.n}"


def as_object(group: "Group") -> dict[str, Any]:
    """For JSON."""
    return asdict(group) | {"n": group.n, "mean": group.mean, "sd": group.sd, "interval95": group.interval95}
