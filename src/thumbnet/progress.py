"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere. Written to stderr, never to stdout."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeAlias

from rich import progress as rich_progress
from rich.console import Console

from thumbnet.words import visible, visible_lines

Progress: TypeAlias = Callable[[str, int, int], None]  # what is going on, done, total


def no_progress(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class Reporter(AbstractContextManager["Reporter"]):
    """Says nothing. The other reporters extend this; the training loop calls these four methods."""

    def say(self, line: str) -> None:
        """One line of prose."""

    def loading(self, what: str, done: int, total: int) -> None:
        """Progress of a download or a conversion, in bytes or images."""

    def step(self, done: int, total: int, line: Callable[[], str]) -> None:
        """`done` of `total` training steps lie behind; `line()` tells epoch, loss, accuracy, speed and time left.

        Called after every step. `line` reads from the device, which on a GPU waits for it: call it seldom.
        """

    def epoch(self, row: dict[str, Any], epochs: float) -> None:
        """An epoch ended with this row of metrics."""

    def __exit__(self, *error: object) -> None:
        return None


class Epochs(Reporter):
    """One line an epoch; where epochs take less than a second, of the first, the last and one a second."""

    told = -math.inf  # when the last line was

    def epoch(self, row: dict[str, Any], epochs: float) -> None:
        now = time.monotonic()
        if now - self.told >= 1.0 or row["epoch"] == 1 or row["epoch"] >= math.ceil(epochs):
            self.told = now
            self.say(epoch_line(row, epochs))


class Lines(Epochs):
    """Plain lines: of epochs, and every ten seconds within long ones."""

    every = 10.0  # seconds

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.what = ""

    def say(self, line: str) -> None:
        with suppress(OSError):  # the reader went away, or the log's disk is full: no reason to lose a run
            print(visible_lines(line), file=sys.stderr, flush=True)

    def loading(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.what = what
            self.say(what)

    def step(self, done: int, total: int, line: Callable[[], str]) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.say(f"{done / total:4.0%}  {line()}")

    def epoch(self, row: dict[str, Any], epochs: float) -> None:
        self.last = time.monotonic()
        super().epoch(row, epochs)


class Bar(Epochs):
    """A progress bar with the current figures, and lines of epochs above it."""

    every = 0.2  # seconds

    def __init__(self) -> None:
        self.last = 0.0
        console = Console(stderr=True, highlight=False)
        texts = map(rich_progress.TextColumn, ("{task.percentage:>3.0f} %", "{task.description}"))
        columns = (rich_progress.BarColumn(bar_width=24), *texts)
        self.progress = rich_progress.Progress(*columns, console=console, transient=True)
        self.task = self.progress.add_task("", total=None, visible=False)
        self.progress.start()

    def say(self, line: str) -> None:
        with suppress(OSError):  # the terminal is gone
            self.progress.console.print(visible_lines(line), markup=False, soft_wrap=True)

    def loading(self, what: str, done: int, total: int) -> None:
        self.progress.update(
            self.task, completed=done, total=total or None, description=visible(what), visible=done < total
        )

    def step(self, done: int, total: int, line: Callable[[], str]) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.progress.update(self.task, completed=done, total=total, description=line(), visible=True)

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # the terminal is gone
            self.progress.stop()


def reporter_for_terminal() -> Reporter:
    """A bar where a person watches, lines where a file or another program does."""
    return Bar() if sys.stderr.isatty() else Lines()


def epoch_line(row: dict[str, Any], epochs: float) -> str:
    """One epoch in one line of 80 columns: loss and accuracy in training, the same of validation, training images per second."""
    line = (
        f"epoch {row['epoch']:>3}/{math.ceil(epochs)}  loss {row['train_loss']:.4f}  acc {row['train_accuracy']:6.2%}"
    )
    if row.get("validation_accuracy") is not None:
        line += f"  val {row['validation_loss']:.4f}  {row['validation_accuracy']:6.2%}"
    return line + f"  {row['images_per_second']:,.0f}/s"
