"""The user's cache: what can be made again, and what may run."""

import os
import stat
from pathlib import Path


def cache_folder() -> Path:
    """THUMBNET_CACHE, else thumbnet's folder in the user's cache."""
    if chosen := os.environ.get("THUMBNET_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "thumbnet"


def check_private(path: Path) -> None:
    """Raise `OSError` where another user could have written what is about to run."""
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or stat.S_ISLNK(status.st_mode):
        raise OSError(f"{path} is not this user's alone")
