"""Processes of ours."""

import gc
import sys

# Objects made before Python looks through the young ones for cycles that nobody holds, and how many such looks before it looks
# through older ones and all; its own are 700, 10 and 10.
GARBAGE = (100_000, 50, 50)


def python(*words: str) -> list[str]:
    """The command of a Python like this one, which imports nothing from the folder that it is started in.

    By itself it would: a folder of pictures from somebody else may hold a file called as a library.
    """
    return [sys.executable, "-P", *words]


def look_for_garbage_seldom() -> None:
    """A tenth of a short command goes into looking, again and again, through what imports of torch and others leave for good."""
    gc.set_threshold(*GARBAGE)
