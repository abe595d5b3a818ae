"""Files that are either whole or absent: written beside their place, synced, then renamed. Pipes and devices are written into."""

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from thumbnet.errors import ThumbnetError, UserError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `path` in one step, on failure nothing is left behind.

    A link gives way to the file, and what it pointed at stays as it was. A pipe or a device stays, and the bytes go into it.
    """
    try:
        with (feeding if is_written_into(path) else renaming)(path) as temporary:
            yield temporary
    except OSError as error:
        raise write_failed(path, error) from error


@contextmanager
def renaming(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path`.

    The temporary file lies in the same folder, since a rename is atomic only within one file system. File and folder
    are synced, so that after a power cut the old or the new content is there, never a part.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        make_folder(path.parent)
        create_anew(temporary)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):  # nothing was written, or it was renamed
            temporary.unlink()


@contextmanager
def feeding(path: Path) -> Iterator[Path]:
    """A temporary path, elsewhere, whose bytes go into `path`: in a pipe, writers of archives and pictures could not go back."""
    with TemporaryDirectory() as folder:
        temporary = Path(folder, "content")
        create_anew(temporary)
        yield temporary
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)  # append: where stdout goes, something may stand already
        with open(descriptor, "wb") as target, open(temporary, "rb") as source:
            shutil.copyfileobj(source, target)


def is_written_into(path: Path) -> bool:
    """Whether there is a pipe, a device, or the very file that this process prints to (/dev/stdout), maybe behind a link.

    Raises `UserError` for a disk as a whole.
    """
    try:
        found = path.stat()
    except OSError:  # nothing there; whatever else is wrong is told when it is written
        return False
    if stat.S_ISBLK(found.st_mode):
        raise UserError(f"cannot write {path}: it is a whole disk; give the name of a file")
    if stat.S_ISREG(found.st_mode):
        return is_printed_to(found)
    return not stat.S_ISDIR(found.st_mode)


def is_printed_to(found: os.stat_result) -> bool:
    """Whether a file is the one that stdout or stderr was redirected to."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(found, os.fstat(descriptor)):
                return True
    return False


def create_anew(path: Path) -> None:
    """An empty file that was not there before: a leftover of that name goes, a link is not followed."""
    with suppress(FileNotFoundError):
        path.unlink()
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))


def drop_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed processes of this machine left of files that they were replacing."""
    for temporary in folder.glob(f".{name}.tmp-*"):
        number = temporary.name.rpartition("-")[2]
        if number.isdecimal() and not is_running(int(number)):
            with suppress(OSError):
                temporary.unlink()


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)  # asks, and does nothing
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing, so that they survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the file's whole content. Names in it that are no text are written as `words.printable` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Replace the file by one JSON value, indented for people. ASCII, since file names may hold bytes that are no text."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: "Mapping[str, NDArray[Any]]", metadata: dict[str, str] | None = None) -> None:
    """Replace the file by named arrays in the safetensors format, which can hold no code."""
    import numpy as np
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


def umask() -> int:
    """The permissions that new files of this process lack; there is no way to ask without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def append_line(path: Path, line: str) -> None:
    """Add one line and sync it. A reader may meet a torn last line after a power cut, never a torn earlier one.

    A torn line that is there, from a power cut or a full disk, is removed first. A link is not followed. Processes that add lines
    to one file wait for each other.
    """
    try:
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with open(descriptor, "r+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.parent)
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


def write_failed(path: Path, error: OSError) -> ThumbnetError:
    """The one-line error for a disk that is full, read-only or not ours."""
    reason = error.strerror or first_line(error)
    if not (is_full(error) or "space" in reason or "too large" in reason):  # a library's error has words, but no number
        return UserError(f"cannot write {path}: {reason}; choose another place and run again")
    with suppress(OSError):
        reason += f" ({shutil.disk_usage(path.parent).free:,} bytes are free there)"
    return UserError(f"cannot write {path}: {reason}; free some space and run again")


def is_full(error: OSError) -> bool:
    """Whether the disk, the user's share of it, or the largest size of a file is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
