"""One process at a time where two would do harm; the others wait, or go away, and are told by whom.

The system frees a lock when its owner ends, however it ends. The file beside it that names the owner is for people only.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from thumbnet.errors import UserError
from thumbnet.files import is_running, write_failed, write_text


class Held(Exception):
    """Another process holds the lock; the message says which: `process 4711 on host since 2026-11-24T12:00:00+00:00`."""


@contextmanager
def locked(path: Path, *, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`. Where another process does: `wait(who)` and then wait, or without it raise `Held`.

    Raises `OSError` where the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(path), path.with_name(f"{path.name}-holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if wait is None:
            raise Held(holder_of(holder)) from None
        wait(holder_of(holder))
        lock.acquire()
    try:
        with suppress(UserError):  # the lock holds all the same
            write_text(holder, f"process {os.getpid()} on {platform.node()} since {now()}\n")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


@contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a run's or a study's folder. Raises `UserError` where another process is `doing` something in it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock"))
        except Held as owner:
            raise UserError(
                f"another process is {doing} in {folder} ({owner}); wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise write_failed(folder / ".lock", error) from error
        yield


def holder_of(path: Path) -> str:
    """Who holds a lock, as it wrote down; one that was killed is passed over until its follower has written."""
    for _ in range(20):
        with suppress(OSError, ValueError):
            told = path.read_text(encoding="utf-8").strip()
            _, number, _, host, *_ = told.split()
            if host != platform.node() or is_running(int(number)):
                return told
        time.sleep(0.05)
    return "a process that has not written its number down"


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
