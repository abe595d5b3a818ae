"""Does a run of your recipe on this machine, killed at any step and resumed, end with the bits of one never interrupted?"""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thumbnet.errors import TrainingFailed, UserError
from thumbnet.files import write_text
from thumbnet.processes import python
from thumbnet.recipes.recipe import Recipe, vary
from thumbnet.recipes.recipe_file import as_toml, recipe_table
from thumbnet.recipes.schedule import steps_per_epoch, total_steps
from thumbnet.runs.checkpoints import manifests, place_of
from thumbnet.runs.run import Run

STEPS = 12  # of each of the two runs
KILLS = 3
SECONDS = 600.0  # for one process to end; a step of any recipe takes less than a second on two cores
CLOCKS = ("training_seconds", "images_per_second")  # what may differ between the two


@dataclass(frozen=True)
class Resumed:
    """What came of it: how many steps, after how many of them a process was killed, and what differs."""

    recipe: str
    steps: int
    killed_after: list[int]
    differing: list[str]


def check_resuming(
    dataset: str, images: int, recipe: Recipe, folder: Path, options: list[str], tell: Callable[[str], None]
) -> Resumed:
    """Train some steps of the recipe twice in `folder`, once killed without warning (SIGKILL) again and again.

    `images` is the number of training images; `options` are added to `thumbnet train`. Raises `UserError` where `folder`
    is taken, `TrainingFailed` where the runs do not end.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is taken; give another --runs")
    short = vary(recipe, epochs=max(0.01, STEPS * recipe.batch_size / images))
    file = folder / "recipe.toml"
    write_text(file, as_toml(recipe_table(short), "a few steps of it"))
    every_step = [*options, "--checkpoint-seconds", "0", "--no-report"]
    train = python("-m", "thumbnet.cli.main", "--config", str(file), "train", *every_step)

    tell(f"{recipe.name}: some steps without interruption")
    whole = start([*train, "--out", str(folder / "whole"), "--", dataset], folder / "whole.log")
    end(whole, folder / "whole.log")
    cut, killed_after = folder / "cut", list[int]()
    for kill in range(KILLS):
        last = killed_after[-1] if killed_after else -1
        tell(f"the same, killed {kill + 1} of {KILLS} times")
        process = start([*train, "--out", str(cut), *resume(cut), "--", dataset], folder / "cut.log")
        step = wait_beyond(last + 2, cut, process)
        process.kill()
        if process.wait() == -signal.SIGKILL and step is not None:
            killed_after.append(step)
    if not killed_after:
        raise TrainingFailed(
            f"{recipe.name} ended before it could be killed, so nothing was shown; see {folder / 'cut.log'}"
        )
    end(start([*train, "--out", str(cut), *resume(cut), "--", dataset], folder / "cut.log"), folder / "cut.log")
    one, other = Run.open(folder / "whole"), Run.open(cut)
    return Resumed(recipe.name, steps_of(other), killed_after, differences_between(one, other))


def start(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """A training process of its own; what it says goes to `log`."""
    with open(log, "ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def end(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for it to finish its run. Raises `TrainingFailed` where it does not."""
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise TrainingFailed(f"a run of {STEPS} steps did not end in {SECONDS:g} s; see {log}") from None
    if code:
        raise TrainingFailed(f"a run of {STEPS} steps ended with exit code {code}; see {log}")


def resume(folder: Path) -> list[str]:
    """What to add to the command where a run was begun."""
    return ["--resume"] if (folder / "recipe.toml").is_file() else []


def wait_beyond(step: int, folder: Path, process: "subprocess.Popen[bytes]") -> int | None:
    """Wait for a checkpoint after at least so many steps; how many it was, or None where the run ends before."""
    limit = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < limit:
        places = [place_of(manifest) or (0, 0) for manifest in manifests(folder / "checkpoint")]
        if places:
            run = Run.open(folder)
            steps = steps_per_epoch(run.recipe, run.data["train"])
            if (reached := places[0][0] * steps + places[0][1]) >= step:
                return reached
        time.sleep(0.005)
    return None


def steps_of(run: Run) -> int:
    """Steps that a finished run made: a little more than asked for where few images fill few batches."""
    return total_steps(run.recipe, steps_per_epoch(run.recipe, run.summary["train_images"]))


def differences_between(one: Run, other: Run) -> list[str]:
    """What of two finished runs is not the same, in words; empty where every bit is."""
    found = []
    if (one.path / "model.safetensors").read_bytes() != (other.path / "model.safetensors").read_bytes():
        found.append("the weights")
    if without_clocks(one.metrics) != without_clocks(other.metrics):
        found.append("the metrics")
    return found


def without_clocks(rows: list[dict[str, Any]]) -> str:
    return json.dumps([{key: value for key, value in row.items() if key not in CLOCKS} for row in rows])
