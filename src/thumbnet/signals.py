"""SIGINT and SIGTERM as a question the training loop asks between steps, so that a checkpoint is always written whole."""

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


class StopRequested(Exception):
    """Raised by `StopSignals.check` after a signal; the loop answers with a checkpoint."""


class StopSignals(AbstractContextManager["StopSignals"]):
    """Inside, the first SIGINT or SIGTERM only sets a flag; a second one stops at once with KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received: str | None = None
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def check(self) -> None:
        """Raise `StopRequested` if a signal came."""
        if self.received:
            raise StopRequested(self.received)
