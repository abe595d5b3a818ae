"""The errors that a user meets. Each carries one line: what was received, and what to do. `exit_code` is the command's."""

import difflib
from collections.abc import Iterable


class ThumbnetError(Exception):
    """Base of all errors that thumbnet raises on purpose; the command line prints them without a traceback."""

    exit_code = 1


class UserError(ThumbnetError, ValueError):
    """Something the user can mend: a wrong name, value, file or folder."""

    exit_code = 2


class BrokenImage(UserError):
    """A picture of a data set that cannot be decoded; `fault` says which and why, without the advice of reading the others."""

    def __init__(self, fault: str):
        super().__init__(f"{fault}, or pass --skip-broken, which counts and lists such files")
        self.fault = fault


class TrainingFailed(ThumbnetError):
    """The run itself failed, for instance because the loss left the finite numbers."""

    exit_code = 1


class Interrupted(ThumbnetError):
    """Stopped by a signal after a checkpoint was written; `--resume` continues. 75 is EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


def unknown_name(kind: str, received: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, offering the nearest one that does, or all where none is near.

    `kind` is a singular noun such as "recipe".
    """
    known = list(known)
    by_small_letters = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(received.casefold(), by_small_letters, n=1, cutoff=0.5)
    hint = f"did you mean {by_small_letters[near[0]]!r}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {received!r}; {hint}")


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
