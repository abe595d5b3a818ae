"""The runs of a study or a sweep: each in a process of its own, its recipe and what it says in files beside its folder."""

import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.data.names import SPECS, comes_as_files
from thumbnet.errors import UserError
from thumbnet.files import write_text
from thumbnet.machine import Machine
from thumbnet.own_code import check_trusted
from thumbnet.processes import python
from thumbnet.recipes.recipe import Recipe
from thumbnet.recipes.recipe_file import as_toml, recipe_table
from thumbnet.words import as_word

if TYPE_CHECKING:
    from thumbnet.backend import Backend
    from thumbnet.data.datasets import Dataset


@dataclass(frozen=True)
class Variant:
    """One row of a study: a name, a data set, and the recipe without its seed. `note` stands beside it in the report."""

    name: str
    dataset: str
    recipe: Recipe
    note: str = ""
    stated: Mapping[str, str] = field(default_factory=dict)  # what another report says of it, by column
    decoding: Mapping[str, Any] = field(default_factory=dict)  # of pictures: those of `DECODING` that were given


@dataclass(frozen=True)
class Cell:
    """One run."""

    variant: Variant
    recipe: Recipe

    @property
    def name(self) -> str:
        """A folder name: the variant's in letters, digits and dashes, then seed and fold."""
        letters = "".join(letter if letter.isalnum() else "-" for letter in self.variant.name)
        fold = f"-f{self.recipe.fold}" if self.recipe.folds else ""
        return f"{'-'.join(filter(None, letters.split('-')))}-s{self.recipe.seed}{fold}"

    def run_folder(self, folder: Path) -> Path:
        """Where its run is, in the folder of the study or sweep."""
        return folder / "cells" / self.name

    def log(self, folder: Path) -> Path:
        """What its process said."""
        return folder / "cells" / f"{self.name}.log"

    def write_recipe(self, folder: Path) -> None:
        """What it trains, where the process that `start` begins reads it."""
        write_text(
            folder / "cells" / f"{self.name}.toml", as_toml(recipe_table(self.recipe), "one run of a study or sweep")
        )


@dataclass
class Running:
    """The processes that train now, and what has come of the others."""

    processes: dict[str, tuple[subprocess.Popen[bytes], Cell, float]] = field(default_factory=dict)
    failed: list[Cell] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)  # exit codes of the processes that have ended
    seconds: list[float] = field(default_factory=list)  # of the cells that this call finished


def start(
    cell: Cell, folder: Path, running: Running, machine: Machine, threads: int | None, data_dir: Path | None
) -> None:
    """Begin, or go on with, one cell in a process of its own; what it says goes to CELL.log."""
    out = cell.run_folder(folder)
    flags: dict[str, Any] = {
        "device": machine.device,
        "precision": machine.precision,
        "threads": threads,
        "data_dir": data_dir if comes_as_files(cell.variant.dataset) else None,
    }
    flags |= {"gpu_memory_limit": machine.gpu_memory_limit, "checkpoint_seconds": machine.checkpoint_seconds}
    flags |= cell.variant.decoding
    words = [as_word(name, value) for name, value in flags.items() if value not in (None, False)]
    begun = ["--resume"] if (out / "recipe.toml").is_file() else []
    # What a file of a study names may look like a flag, even one that trusts code.
    command = ["--config", str(out.with_suffix(".toml")), "train", "--out", str(out), *begun, "--no-report", *words]
    with open(cell.log(folder), "ab") as log:
        process = subprocess.Popen(
            python("-m", "thumbnet.cli.main", *command, "--", cell.variant.dataset),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
        )
    running.processes[cell.name] = (process, cell, time.monotonic())


def ended(running: Running) -> Iterator[Cell]:
    """The cells whose processes have ended since the last look."""
    for name, (process, cell, began) in list(running.processes.items()):
        if process.poll() is None:
            continue
        del running.processes[name]
        running.codes[name] = process.returncode
        if process.returncode == 0:
            running.seconds.append(time.monotonic() - began)
        else:
            running.failed.append(cell)
        yield cell


@contextmanager
def leaving_no_process(running: Running) -> Iterator[None]:
    """Whatever ends the study or sweep, its children are told to stop, and waited for: they write checkpoints."""
    try:
        yield
    finally:
        for process, _, _ in running.processes.values():
            if process.poll() is None:
                process.terminate()
        for process, _, _ in running.processes.values():
            process.wait()


def share_of_cores(machine: Machine, jobs: int) -> int | None:
    """Threads of each of so many processes at a time; None leaves it to the one that is alone."""
    return machine.threads or (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)


def check_data_dir(datasets: Iterable[str], data_dir: Path | None) -> None:
    """Raise `UserError` for a `data_dir` that no data set is looked for in."""
    names = sorted(set(datasets))
    if data_dir is not None and not any(map(comes_as_files, names)):
        raise UserError(
            f"data_dir {data_dir} is for the files of published sets, not for {', '.join(names)}; leave it out"
        )


def check_is_judged(variant: Variant, data_dir: Path | None = None) -> None:
    """Raise `UserError` for a recipe that holds no images out, on data that bring no validation images either."""
    if variant.recipe.validation or variant.recipe.folds or variant.dataset in SPECS:  # asked when the file was read
        return
    if data_at_hand(variant, data_dir).own_validation is None:
        raise UserError(
            f"the recipe trains on all images of {variant.dataset} (validation 0), so that nothing is left to judge it by; "
            "give validation, as in 0.1"
        )


def check_start(cells: "Iterable[Cell]", data_dir: Path | None = None) -> None:
    """Raise `UserError` where what a run refers to does not fit, before the first is trained."""
    loaded: dict[str, Dataset] = {}
    for cell in cells:
        check_trusted(cell.recipe.own_code)
        if cell.recipe.start_from or cell.recipe.leave_out:
            from thumbnet.training.start import check_beginning

            name = cell.variant.dataset
            loaded[name] = loaded[name] if name in loaded else data_at_hand(cell.variant, data_dir)
            check_beginning(cell.recipe, loaded[name])


def check_lists(folder: Path) -> None:
    """Raise `UserError` where a run in the folder began with a list of images to leave out that was changed since."""
    from thumbnet.runs.paths import check_same_list
    from thumbnet.runs.run import Run

    for recipe in sorted((folder / "cells").glob("*/recipe.toml")):
        check_same_list(Run.open(recipe.parent))


def data_at_hand(variant: Variant, data_dir: Path | None) -> "Dataset":
    """The data set of a row, whole; never downloaded."""
    from thumbnet.data.datasets import load_dataset

    if comes_as_files(variant.dataset):
        return load_dataset(variant.dataset, validation=0, data_dir=data_dir, offline=True)
    return load_dataset(variant.dataset, validation=0, **variant.decoding)


def start_up_seconds() -> float:
    """What the process of a cell takes before it trains: a fresh one that imports what training does."""
    began = time.monotonic()
    subprocess.run(python("-c", "import thumbnet.training.loop"), stdin=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def seconds_of_run(recipe: Recipe, data: "Dataset", backend: "Backend") -> float:
    """What a run of the recipe takes, by three of its steps."""
    from thumbnet.training.preparation import check_fits
    from thumbnet.training.timing import step_seconds, training_seconds

    cut = data.with_validation(**recipe.cut)
    check_fits(recipe, cut)
    return training_seconds(recipe, cut, step_seconds(recipe, cut, backend, steps=3))
