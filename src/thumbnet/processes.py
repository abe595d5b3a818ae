"""Processes of ours."""

import gc
import sys

# Objects made before Python looks through the young ones for cycles that nobody holds, and how many such looks before it looks
# through older ones, and through all. Importing torch makes half a million that stay; measured: 0.15 of 1.2 s went into looking.
WHILE_IMPORTING = (100_000, 50, 50)
AS_USUAL = gc.get_threshold()


def python(*words: str) -> list[str]:
    """The command of a Python like this one, which imports nothing from the folder that it is started in.

    By itself it would: a folder of pictures from somebody else may hold a file called as a library.
    """
    return [sys.executable, "-P", *words]


def look_for_garbage_seldom() -> None:
    """Until `look_for_garbage_as_usual`: for a process of ours that is about to import much."""
    gc.set_threshold(*WHILE_IMPORTING)


def look_for_garbage_as_usual() -> None:
    """Once all is imported; what is there by then is left out of every look. Nothing in a program that is not ours."""
    if gc.get_threshold() == WHILE_IMPORTING:
        gc.freeze()
        gc.set_threshold(*AS_USUAL)
