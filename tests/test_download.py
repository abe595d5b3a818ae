"""Downloads from a server that misbehaves in every way known: a wrong file never gets the final name."""

import hashlib
import http.server
import io
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from thumbnet.data import download as download_module
from thumbnet.data.download import RemoteFile, download
from thumbnet.errors import UserError
from thumbnet.locks import locked

CONTENT = bytes(range(256)) * 800  # 204,800 bytes: several pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the function that the test registered for the path."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        try:
            self.server.answers[self.path](self)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has left, as it should
        self.close_connection = True

    def begin(self, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.server.sent += len(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.sent = 0
        self.closing = threading.Event()

    def serve(self, answer: Callable[[Handler], None], path: str = "/file") -> str:
        self.answers[path] = answer
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "DEFAULT_WAIT", 0.01)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def remote(*urls: str, size: int | None = len(CONTENT)) -> RemoteFile:
    return RemoteFile("data.bin", urls, SHA256, size)


def good(handler: Handler) -> None:
    handler.begin(length=len(CONTENT))
    handler.send(CONTENT)


def ranged(handler: Handler, content: bytes = CONTENT, upto: int | None = None) -> None:
    """A server that continues; it breaks off before byte `upto`."""
    start = int(re.findall(r"\d+", handler.headers.get("Range", "bytes=0-"))[0])
    if start:
        handler.begin(206, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.begin(length=len(content))
    handler.send(content[start:upto])


def refusal(file: RemoteFile, folder: Path, **options: float) -> str:
    """The error's one line; nothing but leftovers of a download may be in the folder."""
    with pytest.raises(UserError) as caught:
        download(file, folder, **options)
    assert {path.name for path in folder.iterdir()} <= {"data.bin.partial", "data.bin.lock"}
    message = str(caught.value)
    assert "\n" not in message
    assert f"put it at {folder / 'data.bin'} (SHA-256 {SHA256})" in message
    assert all(urlsplit(url).netloc in message for url in file.urls)
    return message


def assert_recovers(server: Server, folder: Path) -> None:
    """After any failure a good server brings the file, from whatever was left behind."""
    path = download(remote(server.serve(ranged, "/recovery")), folder)
    assert path.read_bytes() == CONTENT
    assert not (folder / "data.bin.partial").exists()


def test_who_wants_a_file_that_another_downloads_waits_and_is_told(server: Server, tmp_path: Path) -> None:
    told, file = threading.Event(), remote(server.serve(good))
    with locked(tmp_path / "data.bin.lock"):
        waiting = threading.Thread(target=lambda: download(file, tmp_path, wait=lambda owner: told.set()))
        waiting.start()
        assert told.wait(10) and not (tmp_path / "data.bin").exists()
    waiting.join(10)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_good_file_arrives_whole_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    folder = tmp_path / "new" / "folder"
    path = download(remote(server.serve(good)), folder, progress=lambda done, total: seen.append((done, total)))
    assert path == folder / "data.bin"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {len(CONTENT)}
    assert not (folder / "data.bin.partial").exists()


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_of_unknown_size_arrives(announced: bool, server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(length=len(CONTENT) if announced else None)
        handler.send(CONTENT)

    totals = set()
    path = download(remote(server.serve(answer), size=None), tmp_path, progress=lambda _, total: totals.add(total))
    assert path.read_bytes() == CONTENT
    assert totals == {len(CONTENT) if announced else None}


def test_a_chunked_answer_is_read(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.begin(Transfer_Encoding="chunked")
        for start in range(0, len(CONTENT), 50_000):
            piece = CONTENT[start : start + 50_000]
            handler.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.send(b"0\r\n\r\n")

    assert download(remote(server.serve(answer)), tmp_path).read_bytes() == CONTENT


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("offline", [True, False])
def test_a_file_that_is_there_costs_no_connection(offline: bool, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert download(remote("http://127.0.0.1:9/file"), tmp_path, offline=offline) == tmp_path / "data.bin"
    assert list(tmp_path.iterdir()) == [tmp_path / "data.bin"]


@pytest.mark.usefixtures("no_network")
def test_offline_says_how_to_provide_the_file(tmp_path: Path) -> None:
    message = refusal(remote("http://127.0.0.1:9/file"), tmp_path, offline=True)
    assert message.startswith(f"{tmp_path / 'data.bin'} is absent and downloads are switched off; if you have it")
    assert "--data-dir" in message
    assert "download http://127.0.0.1:9/file" in message
    assert not list(tmp_path.iterdir())
    (tmp_path / "data.bin").write_bytes(b"other")
    with pytest.raises(UserError, match=r"data\.bin has another checksum"):
        download(remote("http://127.0.0.1:9/file"), tmp_path, offline=True)
    assert (tmp_path / "data.bin").read_bytes() == b"other"


@pytest.mark.usefixtures("no_network")
def test_the_guard_against_sockets_works(tmp_path: Path) -> None:
    """Guards the two tests above: without the file, and not offline, a socket is wanted."""
    with pytest.raises(AssertionError, match="a socket was opened"):
        download(remote("http://127.0.0.1:9/file"), tmp_path)


def test_a_wrong_file_of_that_name_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"x" * len(CONTENT))
    assert download(remote(server.serve(good)), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("announced", [True, False])
def test_truncation_says_how_much_came(announced: bool, server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(length=len(CONTENT) if announced else None)
        handler.send(CONTENT[:HALF])

    message = refusal(remote(server.serve(answer)), tmp_path)
    assert f"the connection ended early; got {HALF} of {len(CONTENT)} bytes" in message
    assert "SHA-256" not in message.split(";")[1]
    assert len(server.requests) == 2  # the second did not get further, so there is no third
    assert_recovers(server, tmp_path)


def test_truncation_of_unknown_size_is_noticed_by_its_length(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(length=len(CONTENT))
        handler.send(CONTENT[:HALF])

    assert f"got {HALF} of {len(CONTENT)} bytes" in refusal(remote(server.serve(answer), size=None), tmp_path)


def test_a_broken_download_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    upto = iter([HALF, HALF + 1000, None])
    path = download(remote(server.serve(lambda handler: ranged(handler, upto=next(upto)))), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert server.sent == len(CONTENT)


def test_a_later_run_and_another_mirror_continue(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.partial").write_bytes(CONTENT[:HALF])
    missing = server.serve(lambda handler: handler.begin(404), "/missing")
    assert download(remote(missing, server.serve(ranged)), tmp_path).read_bytes() == CONTENT
    assert server.sent == len(CONTENT) - HALF


def test_a_complete_partial_file_is_only_renamed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.partial").write_bytes(CONTENT)
    assert download(remote(server.serve(good)), tmp_path).read_bytes() == CONTENT
    assert not server.requests


@pytest.mark.parametrize("left", [CONTENT[:HALF], b"x" * HALF, b"x" * len(CONTENT), b"x" * (2 * len(CONTENT))])
@pytest.mark.parametrize("server_continues", [True, False])
def test_any_leftover_ends_in_the_right_file(
    left: bytes, server_continues: bool, server: Server, tmp_path: Path
) -> None:
    """Rightly begun, begun by another file, complete and wrong, too long; continued or sent anew by the server."""
    (tmp_path / "data.bin.partial").write_bytes(left)
    url = server.serve(ranged if server_continues else good)
    assert download(remote(url), tmp_path).read_bytes() == CONTENT


def test_a_leftover_beyond_the_end_of_the_file_is_begun_again(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.begin(416, 0, Content_Range=f"bytes */{len(CONTENT)}")
        else:
            good(handler)

    (tmp_path / "data.bin.partial").write_bytes(b"x" * (2 * len(CONTENT)))
    assert download(remote(server.serve(answer), size=None), tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [f"bytes={2 * len(CONTENT)}-", None]


def test_a_range_that_was_not_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(206, 10, Content_Range=f"bytes 7-16/{len(CONTENT)}")
        handler.send(CONTENT[7:17])

    (tmp_path / "data.bin.partial").write_bytes(CONTENT[:HALF])
    assert "a range that was not asked for" in refusal(remote(server.serve(answer)), tmp_path)
    assert (tmp_path / "data.bin.partial").read_bytes() == CONTENT[:HALF]


def test_a_wrong_continued_file_is_begun_once_more_and_no_more(server: Server, tmp_path: Path) -> None:
    """The file changed on the server between the two halves, for good."""
    (tmp_path / "data.bin.partial").write_bytes(CONTENT[:HALF])
    message = refusal(remote(server.serve(lambda handler: ranged(handler, b"y" * len(CONTENT)))), tmp_path)
    assert [wanted for _, wanted in server.requests] == [f"bytes={HALF}-", None]
    assert hashlib.sha256(b"y" * len(CONTENT)).hexdigest() in message
    assert not (tmp_path / "data.bin.partial").exists()


def test_one_flipped_byte_is_refused_with_both_sums_and_the_next_mirror_is_tried(
    server: Server, tmp_path: Path
) -> None:
    flipped = b"\xff" + CONTENT[1:]

    def answer(handler: Handler) -> None:
        handler.begin(length=len(flipped))
        handler.send(flipped)

    bad = server.serve(answer, "/bad")
    message = refusal(remote(bad), tmp_path)
    assert f"received a file with SHA-256 {hashlib.sha256(flipped).hexdigest()}, expected {SHA256}" in message
    assert not (tmp_path / "data.bin.partial").exists()
    assert len(server.requests) == 1
    assert download(remote(bad, server.serve(good)), tmp_path).read_bytes() == CONTENT


def test_each_failed_mirror_is_reported(server: Server, tmp_path: Path) -> None:
    missing = server.serve(lambda handler: handler.begin(404), "/missing")
    page = server.serve(lambda handler: handler.begin(length=0, Content_Type="text/html; charset=utf-8"), "/page")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        message = refusal(remote(missing, page, f"http://{address}/closed"), tmp_path)
    served = urlsplit(missing).netloc
    assert f"answered HTTP 404: {served}" in message
    assert f"sent a web page instead of the file: {served}" in message
    assert re.search(rf"cannot connect \(.*Connection refused\): {address}", message)
    assert len(server.requests) == 2


@pytest.mark.parametrize("announced", [True, False])
def test_a_page_of_another_length_is_refused(announced: bool, server: Server, tmp_path: Path) -> None:
    page = b"<html>Please log in to the network</html>"

    def answer(handler: Handler) -> None:
        handler.begin(length=len(page) if announced else None)
        handler.send(page)

    message = refusal(remote(server.serve(answer)), tmp_path)
    expected = f"announced {len(page)} bytes, expected" if announced else f"got {len(page)} of {len(CONTENT)} bytes"
    assert expected in message
    assert_recovers(server, tmp_path)


def test_an_empty_answer_is_refused(server: Server, tmp_path: Path) -> None:
    assert f"got 0 of {len(CONTENT)} bytes" in refusal(remote(server.serve(Handler.begin)), tmp_path)
    assert_recovers(server, tmp_path)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_once_more(status: int, server: Server, tmp_path: Path) -> None:
    answers = iter([lambda handler: handler.begin(status, 0, Retry_After="0"), good])
    assert download(remote(server.serve(lambda handler: next(answers)(handler))), tmp_path).read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_left_after_two_requests(server: Server, tmp_path: Path) -> None:
    busy = server.serve(lambda handler: handler.begin(500, 0), "/busy")
    assert "answered HTTP 500" in refusal(remote(busy), tmp_path)
    assert len(server.requests) == 2
    assert download(remote(busy, server.serve(good)), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(("wished", "waits"), [("3", [3.0]), ("3600", []), ("tomorrow", [0.01])])
def test_retry_after_is_honoured_where_it_is_short(
    wished: str, waits: list[float], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    message = refusal(remote(server.serve(lambda handler: handler.begin(429, 0, Retry_After=wished))), tmp_path)
    assert "answered HTTP 429" in message
    assert [seconds for seconds in slept if seconds != 0.05] == waits  # 0.05 is how filelock polls
    assert len(server.requests) == 1 + len(waits)


def test_a_redirect_is_followed_and_keeps_the_range(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.partial").write_bytes(CONTENT[:HALF])
    url = server.serve(ranged)
    moved = server.serve(lambda handler: handler.begin(302, 0, Location=url), "/moved")
    assert download(remote(moved), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/moved", f"bytes={HALF}-"), ("/file", f"bytes={HALF}-")]


def test_a_redirect_in_a_circle_is_left(server: Server, tmp_path: Path) -> None:
    url = server.serve(lambda handler: handler.begin(302, 0, Location="/file"))
    assert "a redirect in a circle" in refusal(remote(url), tmp_path)
    assert len(server.requests) < 12


@pytest.mark.parametrize("place", ["file://{}", "ftp://127.0.0.1/{}", "data:,{}"])
def test_a_redirect_out_of_the_web_is_not_followed(place: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(CONTENT)
    url = server.serve(lambda handler: handler.begin(302, 0, Location=place.format(tmp_path / "local")))
    folder = tmp_path / "folder"
    message = refusal(remote(url), folder)
    assert "redirect" in message
    assert len(server.requests) == 1


def test_an_address_that_is_no_web_address_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(CONTENT)
    assert "unknown url type" in refusal(remote(f"file://{tmp_path}/local"), tmp_path / "folder")


@pytest.mark.parametrize(
    ("origin", "target", "is_followed"),
    [("https", "http", False), ("https", "https", True), ("http", "https", True), ("http", "http", True)],
)
def test_https_is_never_left_for_http(origin: str, target: str, is_followed: bool) -> None:
    request = urllib.request.Request(f"{origin}://example.org/file")
    arguments = (request, io.BytesIO(), 302, "Found", {}, f"{target}://example.org/other")
    if is_followed:
        followed = download_module._Redirects().redirect_request(*arguments)
        assert followed.full_url == f"{target}://example.org/other"
    else:
        with pytest.raises(download_module._MirrorFailed, match=r"redirects to .http://example\.org/other."):
            download_module._Redirects().redirect_request(*arguments)


def test_the_endless_body_of_a_redirect_is_not_read(server: Server, tmp_path: Path) -> None:
    url = server.serve(good)

    def answer(handler: Handler) -> None:
        handler.begin(302, Location=url)
        while not server.closing.is_set():
            handler.send(bytes(1 << 16))

    assert download(remote(server.serve(answer, "/moved")), tmp_path).read_bytes() == CONTENT


def test_silence_is_a_stall(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(length=len(CONTENT))
        handler.send(CONTENT[:HALF])
        server.closing.wait(10)

    began = time.monotonic()
    message = refusal(remote(server.serve(answer)), tmp_path, stall_seconds=0.2)
    assert f"stalled, nothing for 0.2 seconds; got {HALF} of {len(CONTENT)} bytes" in message
    assert time.monotonic() - began < 2
    assert_recovers(server, tmp_path)


def test_silence_before_the_answer_is_a_stall(server: Server, tmp_path: Path) -> None:
    began = time.monotonic()
    message = refusal(remote(server.serve(lambda _: server.closing.wait(10))), tmp_path, stall_seconds=0.2)
    assert "cannot connect (timed out)" in message
    assert time.monotonic() - began < 2


def test_a_drip_is_a_stall(server: Server, tmp_path: Path) -> None:
    """Each byte arrives in time, so that only the rate shows that nothing will come of it."""

    def answer(handler: Handler) -> None:
        handler.begin(length=len(CONTENT))
        for index in range(500):
            handler.send(CONTENT[index : index + 1])
            if server.closing.wait(0.01):
                return

    began = time.monotonic()
    message = refusal(remote(server.serve(answer)), tmp_path, stall_seconds=0.3)
    assert "stalled, under 1024 bytes a second" in message
    assert time.monotonic() - began < 2
    assert_recovers(server, tmp_path)


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_an_endless_stream_ends_at_the_size(
    size: int | None, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "UNKNOWN_SIZE_LIMIT", len(CONTENT))
    received: list[int] = []
    receive = download_module._receive

    def counted(*arguments: object) -> bytes:
        piece = receive(*arguments)
        received.append(len(piece))
        return piece

    def answer(handler: Handler) -> None:
        handler.begin()
        while not server.closing.is_set():
            handler.send(CONTENT)

    monkeypatch.setattr(download_module, "_receive", counted)
    message = refusal(remote(server.serve(answer), size=size), tmp_path)
    assert f"sent more than the {len(CONTENT)} bytes expected" in message
    assert sum(received) == len(CONTENT) + 1
    assert_recovers(server, tmp_path)


def test_a_reset_connection_is_continued(server: Server, tmp_path: Path) -> None:
    def reset(handler: Handler) -> None:
        handler.begin(length=len(CONTENT))
        handler.send(CONTENT[:HALF])
        handler.wfile.flush()
        time.sleep(0.1)  # let it be read: a reset discards what is still on the way
        linger = struct.pack("ii", 1, 0)  # close with a reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()

    answers = iter([reset, ranged])
    path = download(remote(server.serve(lambda handler: next(answers)(handler))), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={HALF}-"]


def test_an_answer_that_is_not_http_is_refused(server: Server, tmp_path: Path) -> None:
    url = server.serve(lambda handler: handler.send(b"SSH-2.0-OpenSSH_9.9\x1b[31m\r\n\r\n"))
    message = refusal(remote(url), tmp_path)
    assert "cannot connect (" in message
    assert message.isprintable()


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.2)
        good(handler)

    file = remote(server.serve(slow))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(file, tmp_path), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.partial").symlink_to("/dev/full")
    told = r"cannot write \S+data.bin: No space left on device \([\d,]+ bytes are free there\); free some space"
    with pytest.raises(UserError, match=told):
        download(remote(server.serve(good)), tmp_path)
    assert not (tmp_path / "data.bin").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*data\.bin: "):
        download(remote("http://127.0.0.1:9/file"), tmp_path / "file" / "folder")


def test_no_global_opener_is_installed(server: Server, tmp_path: Path) -> None:
    before = urllib.request._opener
    download(remote(server.serve(good)), tmp_path)
    assert urllib.request._opener is before
