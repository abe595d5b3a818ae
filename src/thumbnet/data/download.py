"""Download one file whole or not at all: resumed where it broke, checked before it gets its name, never endless.

HTTP as in RFC 9110: ranges in section 14, Retry-After in 10.2.3. A file is identified by its SHA-256, so it may come
from any mirror, and what one mirror began another may finish.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from thumbnet.errors import UserError
from thumbnet.files import sync_folder, write_failed
from thumbnet.locks import locked
from thumbnet.reading import sha256_of

PIECE = 1 << 16  # bytes asked for at a time
SLOWEST = 1024  # bytes a second; at this rate CIFAR's archive would take two days
ATTEMPTS = 5  # connections to one mirror; each after the first must have brought the file forward
DEFAULT_WAIT = 1.0  # seconds before a busy mirror is asked again, where it does not say
LONGEST_WAIT = 5.0  # seconds; a mirror that asks for more is passed over
BUSY = (429, 500, 502, 503, 504)  # statuses that may pass, RFC 9110 section 15.6 and RFC 6585
UNKNOWN_SIZE_LIMIT = 4 << 30  # bytes; so that an endless stream ends where no size is known

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web: its name here, where it may be had (tried in order), and how to know it."""

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int | None = None  # bytes


def download(
    file: RemoteFile,
    folder: Path,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    wait: Callable[[str], None] = lambda owner: None,
    stall_seconds: float = 30.0,
) -> Path:
    """Give the path of `file` in `folder`, downloading it where it is absent or differs.

    A file that is there already, with the right checksum, costs no connection; `offline` never opens one. Processes
    that want the same file at once wait for the first, and tell `wait` for whom. `progress(done, total)` is called as bytes
    arrive, `total` being None where unknown. Nothing for `stall_seconds`, or less than 1 KiB a second over them, counts as a
    stall. Raises UserError, one line with the reason for each mirror, if no mirror gives the file, or the disk does not take it.
    """
    target = folder / file.name
    if _is_right(target, file):
        return target
    if offline:
        state = "has another checksum" if target.exists() else "is absent"
        raise UserError(f"{target} {state} and downloads are switched off; {_by_hand(file, target)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{file.name}.lock", wait=wait):
            if not _is_right(target, file):  # another process may have brought it meanwhile
                _from_any_mirror(_Job(file, folder / f"{file.name}.partial", progress, stall_seconds), target)
    except OSError as error:
        raise write_failed(target, error) from error
    return target


@dataclass(frozen=True)
class _Job:
    """What stays the same over all mirrors and attempts."""

    file: RemoteFile
    partial: Path
    progress: Progress | None
    stall_seconds: float


class _MirrorFailed(Exception):
    """This mirror does not give the file; the next may."""


class _Broken(Exception):
    """The connection ended early; what came is kept, and the same mirror may continue it."""


def _is_right(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or file.size not in (None, path.stat().st_size):
        return False
    return sha256_of(path) == file.sha256


def _by_hand(file: RemoteFile, target: Path) -> str:
    return (
        f"if you have it, give its folder with --data-dir or THUMBNET_DATA; else download {file.urls[0]} by other means "
        f"and put it at {target} (SHA-256 {file.sha256})"
    )


def _from_any_mirror(job: _Job, target: Path) -> None:
    failures: dict[str, list[str]] = {}  # reason -> servers, so that a missing network is told once
    for url in job.file.urls:
        try:
            _from_mirror(job, url)
        except _MirrorFailed as failure:
            failures.setdefault(str(failure), []).append(urlsplit(url).netloc)
        else:
            os.replace(job.partial, target)
            sync_folder(target.parent)
            return
    reasons = "; ".join(f"{reason}: {', '.join(servers)}" for reason, servers in failures.items())
    raise UserError(f"cannot download {job.file.name} ({reasons}); {_by_hand(job.file, target)}")


def _from_mirror(job: _Job, url: str) -> None:
    """Fill the partial file until its checksum is right. One that was continued and is wrong is begun once more."""
    if _is_right(job.partial, job.file):  # a run was killed between the last byte and the renaming
        return
    failure = ""
    for _ in range(ATTEMPTS):
        start = _size(job.partial)
        try:
            continued = _transfer(job, url)
        except _Broken as broken:
            failure = str(broken)
            if _size(job.partial) <= start:
                break
            continue
        received = sha256_of(job.partial)
        if received == job.file.sha256:
            return
        job.partial.unlink()
        failure = f"received a file with SHA-256 {received}, expected {job.file.sha256}"
        if not continued:
            break
    raise _MirrorFailed(failure)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(job: _Job, url: str) -> bool:
    """Receive the rest of the file, or all of it where the server does not continue; tell whether it was continued."""
    start = _size(job.partial)
    if job.file.size is not None and start >= job.file.size:  # as long as the file, and known to be wrong
        start = 0
    response = _open(url, start, job.stall_seconds)
    if response is None:  # there is nothing from `start` on, so what is here is no part of the file
        start, response = 0, _open(url, 0, job.stall_seconds)
    if response is None:
        raise _MirrorFailed("answered HTTP 416 to a request for the whole file")
    with response:
        start = start if _continues(response, start) else 0
        total = _total(job.file, response, start)
        with open(job.partial, "ab" if start else "wb") as output:
            _copy(job, response, output, start, total)
            output.flush()
            os.fsync(output.fileno())
    return start > 0


def _continues(response: HTTPResponse, start: int) -> bool:
    """Whether the response is the rest of the file from `start`; a server may send all of it instead."""
    if response.status == 200:
        return False
    given = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status != 206 or not given or int(given[1]) != start:
        raise _MirrorFailed(f"answered HTTP {response.status} with a range that was not asked for")
    return True


def _total(file: RemoteFile, response: HTTPResponse, start: int) -> int | None:
    """The size of the whole file, from what is known and what the server announces."""
    announced = None if response.length is None else start + response.length
    if response.headers.get_content_type() == "text/html":
        raise _MirrorFailed("sent a web page instead of the file")
    if file.size is not None and announced not in (None, file.size):
        raise _MirrorFailed(f"announced {announced} bytes, expected {file.size}")
    return announced if file.size is None else file.size


def _copy(job: _Job, response: HTTPResponse, output: IO[bytes], done: int, total: int | None) -> None:
    """Append what arrives. One byte beyond the known size is asked for, since that shows that the file is another."""
    limit = UNKNOWN_SIZE_LIMIT if total is None else total
    since, mark = time.monotonic(), done
    while piece := _receive(job, response, min(PIECE, limit + 1 - done), _got(done, total)):
        done += len(piece)
        if done > limit:
            raise _MirrorFailed(f"sent more than the {limit} bytes expected")
        output.write(piece)
        if job.progress:
            job.progress(done, total)
        seconds = time.monotonic() - since
        if seconds >= job.stall_seconds:
            if done - mark < SLOWEST * seconds:
                raise _MirrorFailed(f"stalled, under {SLOWEST} bytes a second; {_got(done, total)}")
            since, mark = since + seconds, done
    if total is not None and done < total:
        raise _Broken(f"the connection ended early; {_got(done, total)}")


def _receive(job: _Job, response: HTTPResponse, count: int, got: str) -> bytes:
    try:
        return response.read1(count)
    except TimeoutError as error:
        raise _MirrorFailed(f"stalled, nothing for {job.stall_seconds:g} seconds; {got}") from error
    except (OSError, HTTPException) as error:
        raise _Broken(f"the connection broke ({type(error).__name__}); {got}") from error


def _got(done: int, total: int | None) -> str:
    return f"got {done} bytes" if total is None else f"got {done} of {total} bytes"


def _open(url: str, start: int, stall_seconds: float) -> HTTPResponse | None:
    """The response to a request for the file from byte `start`, None for HTTP 416. A busy server is asked twice."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "thumbnet"}
    if start:
        headers["Range"] = f"bytes={start}-"
    for is_last in (False, True):
        try:
            return _opener().open(Request(url, headers=headers), timeout=stall_seconds)
        except HTTPError as error:
            error.close()
            if error.code == 416:
                return None
            wait = _wait(error)
            if is_last or wait is None:
                raise _MirrorFailed(_refusal(error.code)) from error
            time.sleep(wait)
        except (OSError, HTTPException, ValueError) as error:
            reason = re.sub(r"[^ -~]+", " ", str(getattr(error, "reason", error)))[:200]
            raise _MirrorFailed(f"cannot connect ({reason or type(error).__name__})") from error
    raise AssertionError("the loop returns or raises")


def _wait(error: HTTPError) -> float | None:
    """Seconds to wait before one more request, or None where there is no point in it."""
    if error.code not in BUSY:
        return None
    wished = error.headers.get("Retry-After", "")
    seconds = float(wished) if re.fullmatch(r"\d{1,9}", wished) else DEFAULT_WAIT
    return seconds if seconds <= LONGEST_WAIT else None


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"answered HTTP {status}, a redirect in a circle or to what is no web address"
    return f"answered HTTP {status}"


def _opener() -> OpenerDirector:
    """An opener of our own for http and https alone: no files, no ftp, and nothing installed globally."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        UnknownHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http, where anyone on the way could change the bytes."""

    def redirect_request(
        self, request: Request, response: Any, code: int, message: str, headers: Any, url: str
    ) -> Request | None:
        response.close()  # else its body would be read, whatever its length
        if not url.startswith("https://" if request.type == "https" else ("http://", "https://")):
            raise _MirrorFailed(f"redirects to {url[:200]!r}, which is not followed")
        return super().redirect_request(request, response, code, message, headers, url)
