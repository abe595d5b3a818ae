"""Signals to stop as a question the training loop asks between steps, so that a checkpoint is always written whole."""

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

# Ctrl-C; what a system sends before it kills; a terminal that closes; what batch systems such as Slurm are told to send
# ahead of the end.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOPPING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class StopRequested(Exception):
    """Raised by `StopSignals.check` after a signal; the loop answers with a checkpoint."""


class StopSignals(AbstractContextManager["StopSignals"]):
    """Inside, the first signal to stop only sets a flag; a second one stops at once with KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received: str | None = None
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it for SIGHUP
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
