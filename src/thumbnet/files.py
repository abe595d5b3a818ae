"""Files that are either whole or absent: written beside their place, synced, then renamed."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import ThumbnetError, UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `path` in one step, on failure nothing is left behind.

    The temporary file lies in the same folder, since a rename is atomic only within one file system. File and folder
    are synced, so that after a power cut the old or the new content is there, never a part.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error
    finally:
        with suppress(OSError):  # nothing was written, or it was renamed
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace the file's whole content."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace the file by one JSON value, indented for people. ASCII, since file names may hold bytes that are no text."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> None:
    """Replace the file by named arrays in the safetensors format, which can hold no code."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        try:
            save_file(
                {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()},
                temporary,
                metadata,
            )
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error
        temporary.chmod(0o666 & ~umask())  # the library makes its files unreadable for others


def cache_folder() -> Path:
    """THUMBNET_CACHE, else thumbnet's folder in the user's cache."""
    if chosen := os.environ.get("THUMBNET_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "thumbnet"


def umask() -> int:
    """The permissions that new files of this process lack; there is no way to ask without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def append_line(path: Path, line: str) -> None:
    """Add one line and sync it. A reader may meet a torn last line after a power cut, never a torn earlier one."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_failed(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut; does nothing where folders cannot be opened (Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_failed(path: Path, error: OSError) -> ThumbnetError:
    """The one-line error for a disk that is full, read-only or not ours."""
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "space" in reason or "too large" in reason
    return UserError(
        f"cannot write {path}: {reason}; {'free some space' if full else 'choose another place'} and run again"
    )
