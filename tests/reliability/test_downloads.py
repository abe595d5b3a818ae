"""A server that misbehaves in sixteen ways, three times each: alone, before a good one, and with what an earlier try left."""

import socket
import struct
import time

import pytest

from promises import held
from test_download import (  # noqa: F401
    CONTENT,
    HALF,
    Handler,
    Server,
    assert_recovers,
    good,
    ranged,
    refusal,
    remote,
    server,
)
from thumbnet.data.download import download

SOCKETS = 8 << 20  # bytes that the system holds between two processes, sent and never taken
WRONG = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]


def cut(handler: Handler) -> None:
    handler.begin(length=len(CONTENT))
    handler.send(CONTENT[:HALF])


def cut_without_length(handler: Handler) -> None:
    handler.begin()
    handler.send(CONTENT[:HALF])


def flipped(handler: Handler) -> None:
    handler.begin(length=len(WRONG))
    handler.send(WRONG)


def another_length(handler: Handler) -> None:
    handler.begin(length=len(CONTENT) + 7)
    handler.send(CONTENT)


def empty(handler: Handler) -> None:
    handler.begin(length=0)


def page(handler: Handler) -> None:
    handler.begin(length=9, Content_Type="text/html")
    handler.send(b"<h1>!</h1")


def status(code: int, **headers: str):
    def answer(handler: Handler) -> None:
        handler.begin(code, 0, **headers)

    return answer


def to(place: str):
    def answer(handler: Handler) -> None:
        handler.begin(302, 0, Location=place)

    return answer


def in_a_circle(handler: Handler) -> None:
    handler.begin(302, 0, Location=handler.path)


def stalling(handler: Handler) -> None:
    handler.begin(length=len(CONTENT))
    handler.send(CONTENT[:1000])
    handler.server.closing.wait(5)


def dripping(handler: Handler) -> None:
    handler.begin(length=len(CONTENT))
    for byte in CONTENT[:200]:
        handler.send(bytes([byte]))
        if handler.server.closing.wait(0.02):
            return


def endless(handler: Handler) -> None:
    handler.begin()
    while not handler.server.closing.is_set():
        handler.send(CONTENT)


def reset(handler: Handler) -> None:
    handler.begin(length=len(CONTENT))
    handler.send(CONTENT[:1000])
    handler.wfile.flush()
    time.sleep(0.02)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def another_range(handler: Handler) -> None:
    handler.begin(206, HALF, Content_Range=f"bytes 0-{HALF - 1}/{len(CONTENT)}")
    handler.send(CONTENT[:HALF])


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


BEHAVIOURS = {
    "cut in the middle": cut,
    "cut, no length announced": cut_without_length,
    "one bit wrong": flipped,
    "another length announced": another_length,
    "nothing": empty,
    "a web page": page,
    "not found": status(404),
    "broken": status(500),
    "busy for an hour": status(429, Retry_After="3600"),
    "redirects in a circle": in_a_circle,
    "redirects to a file": to("file:///etc/passwd"),
    "stalls": stalling,
    "drips": dripping,
    "never ends": endless,
    "breaks the connection": reset,
    "another range than asked for": another_range,
    "speaks no HTTP": no_http,
    "knows no such range": status(416),
}
TOLD = {
    "cut in the middle": "the connection ended early; got ",
    "one bit wrong": "received a file with SHA-256 ",
    "another length announced": "announced 204807 bytes, expected 204800",
    "a web page": "sent a web page instead of the file",
    "not found": "answered HTTP 404",
    "stalls": "stalled, nothing for 0.3 seconds; got 1000 of 204800 bytes",
    "never ends": "sent more than the 204800 bytes expected",
    "breaks the connection": "the connection broke (",
    "redirects to a file": "answered HTTP 302, a redirect in a circle or to what is no web address",
    "knows no such range": "answered HTTP 416 to a request for the whole file",
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_whatever_a_server_does_no_wrong_file_gets_the_name_and_the_next_try_succeeds(server, tmp_path, name):  # noqa: F811
    behaviour, patience = BEHAVIOURS[name], {"stall_seconds": 0.3}
    alone, before, after = (tmp_path / part for part in ("alone", "before", "after"))

    told = refusal(remote(server.serve(behaviour, "/bad")), alone, **patience)
    assert told.startswith("cannot download data.bin (") and len(told) < 800
    assert TOLD.get(name, "") in told
    assert server.sent <= 6 * len(CONTENT) + SOCKETS, "took far more than the file"
    assert_recovers(server, alone)

    path = download(remote(server.serve(behaviour, "/bad"), server.serve(good, "/good")), before, **patience)
    assert path.read_bytes() == CONTENT

    after.mkdir()
    (after / "data.bin.partial").write_bytes(CONTENT[: HALF // 2])
    refusal(remote(server.serve(behaviour, "/bad")), after, **patience)
    path = download(remote(server.serve(ranged, "/recovery")), after)
    assert path.read_bytes() == CONTENT
    held("T11", "whatever a server does, no wrong file gets the final name, and a good server then brings it", 3, name)
