"""Processes of ours."""

import sys


def python(*words: str) -> list[str]:
    """The command of a Python like this one, which imports nothing from the folder that it is started in.

    By itself it would: a folder of pictures from somebody else may hold a file called as a library.
    """
    return [sys.executable, "-P", *words]
