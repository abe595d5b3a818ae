"""Where runs lie: a place for a new one, the one to continue there, the newest, and all that are below a folder."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from thumbnet.data.names import short_name
from thumbnet.errors import UserError
from thumbnet.reading import sha256_of
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.runs.run import Run

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset


def new_run_path(dataset: str, recipe: Recipe, root: Path = Path("runs")) -> Path:
    """runs/<data set>/<recipe>/<time>-s<seed>, with a number behind it where that is taken."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = root / short_name(dataset) / recipe.name
    path = folder / f"{stamp}-s{recipe.seed}"
    count = 2
    while path.exists():
        path, count = folder / f"{stamp}-s{recipe.seed}-{count}", count + 1
    return path


def is_free(path: Path) -> bool:
    """Whether a run can be made there: nothing is there, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def taken(path: Path) -> UserError:
    """The error for a place where something is already."""
    if (path / "summary.json").is_file():
        return UserError(f"{path} holds a finished run; choose another --out")
    hint = ", or add --resume to continue the run in it" if (path / "recipe.toml").is_file() else ""
    return UserError(f"{path} is taken; choose another --out{hint}")


def existing_run(path: Path, recipe: Recipe, data: "Dataset", resume: bool) -> Run | None:
    """The run to continue in `path`, or None where a new one may be made there."""
    if is_free(path):
        return None
    if not resume:
        raise taken(path)
    run = Run.open(path)
    if changed := differences(recipe, run.recipe):
        told = ", ".join(f"{name} {now!r} (there {then!r})" for name, (now, then) in changed.items())
        raise UserError(f"the recipe differs from that of {path}: {told}; use the same, or another --out")
    run.check_data(data)
    check_same_list(run)
    return run


def check_same_list(run: Run) -> None:
    """Raise `UserError` where the list of images to leave out is another than when the run began; it may be gone."""
    path, then = Path(run.recipe.leave_out), run.environment.get("leave_out_sha256")
    if run.recipe.leave_out and path.is_file() and sha256_of(path) != then:
        raise UserError(
            f"{path} is another list than when {run.path} began; put it back as it was, or choose another --out"
        )


def point_latest(run: Path, root: Path = Path("runs")) -> None:
    """Let runs/latest point at the newest run under `root`; does nothing for runs elsewhere or where links do not exist.

    Nor for auxiliary ones, below a folder whose name begins with a dot.
    """
    try:
        target = run.resolve().relative_to(root.resolve())
        if is_hidden(target):
            return
        temporary = root / f".latest-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, root / "latest")
    except (OSError, ValueError):
        return


def is_hidden(path: Path) -> bool:
    """Whether a folder on the way begins with a dot, as those of runs that only serve another command do."""
    return any(part.startswith(".") for part in path.parts)


ANSWERS = (".csv", ".npz")  # endings of files with what a network said, see judging/answers.py


def is_answers(path: Path) -> bool:
    """Whether this is a file of answers by its name, not a run folder."""
    return path.suffix.lower() in ANSWERS and not path.is_dir()


def find_runs(paths: Sequence[Path], tell: Callable[[str], None] = lambda line: None) -> list[Run]:
    """The runs in folders: a run folder stands for itself, another folder for all finished runs below it.

    What is left out is told, also files beside folders, such as the logs that `cells/*` names too. Raises `UserError` where a
    folder is missing or holds none.
    """
    runs, files = [], [path for path in paths if path.is_file()]
    if 0 < len(files) < len(paths):
        tell(f"note: left out as no folders: {', '.join(map(str, files[:3]))}{' ...' if len(files) > 3 else ''}")
        paths = [path for path in paths if path not in files]
    for path in paths:
        if (path / "recipe.toml").is_file() or not path.is_dir():
            runs.append(Run.open(path))
            continue
        begun = sorted(file.parent for file in path.rglob("recipe.toml") if not is_hidden(file.relative_to(path)))
        below = [folder for folder in begun if (folder / "summary.json").is_file()]
        if unfinished := [str(folder) for folder in begun if folder not in below]:
            tell(f"note: left out as unfinished: {', '.join(unfinished[:3])}{' ...' if len(unfinished) > 3 else ''}")
        if not below:
            raise UserError(f"{path} is not a run folder and holds no finished run")
        runs += [Run.open(folder) for folder in below]
    return runs


def newest_unfinished(dataset: str, recipe: str | None, root: Path = Path("runs")) -> Path:
    """The youngest run folder of a data set (and recipe) that has no summary yet, in its own place or directly in `root`.

    Raises `UserError` where there is none.
    """
    name = short_name(dataset)
    begun = [path.parent for place in (f"{name}/*/*", "*") for path in root.glob(f"{place}/recipe.toml")]
    found = [path for path in begun if not (path / "summary.json").is_file() and is_wanted(path, dataset, recipe)]
    if not found:
        raise UserError(f"nothing to resume: {root} holds no unfinished run of {name}; name its folder with --out")
    return max(found, key=lambda path: (path / "recipe.toml").stat().st_mtime)


def is_wanted(path: Path, dataset: str, recipe: str | None) -> bool:
    """Whether a run is of the data set (and recipe); False for one that cannot be read."""
    try:
        run = Run.open(path)
    except UserError:
        return False
    return run.data.is_of(dataset) and recipe in (None, run.recipe.name)
