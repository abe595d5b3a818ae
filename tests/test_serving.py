"""The server: the answers of `predict`, refusals in one line, and nothing that a stranger can do to it."""

import asyncio
import base64
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import browser
from conftest import CPU
from conftest import thumbnet as thumbnet_command
from thumbnet.errors import UserError
from thumbnet.judging.thresholds import Threshold
from thumbnet.recipes import recipe
from thumbnet.shipping.bundle.folder import export
from thumbnet.shipping.classifier import Classifier, predict_files
from thumbnet.shipping.loading import load
from thumbnet.shipping.serving import application, serve
from thumbnet.shipping.serving.endpoints import LARGEST_BODY, PAGE, WAITING, About, received
from thumbnet.shipping.serving.server import SECONDS_TO_END, settings
from thumbnet.training.loop import train

ABOUT = About("runs/x", "general", "tiny")
LOCAL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    made = recipe("general", widths=(16, 16, 32), epochs=1, batch_size=32)
    return train(made, tiny, tmp_path_factory.mktemp("served") / "run", machine=CPU)


@pytest.fixture(scope="module")
def picture(tiny):
    return png(tiny.development.images[0, 0].numpy())


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


class Fixed(Classifier):
    """Says the same of every image, or fails."""

    def __init__(self, classes=("cat", "dog", "<img src=x onerror=document.title='run'>"), *, fails=False, of=0.1):
        super().__init__(classes, 1, (8, 8), 1.0)
        self.fails, self.of = fails, of

    def computed_by(self):
        return "a table"

    def probabilities(self, pixels, *, views=1):
        if self.fails and pixels.any():  # not when the server warms up
            raise RuntimeError("broken")
        return np.tile(self.of * np.linspace(1, 2, len(self.classes), dtype=np.float32), (len(pixels), 1))

    def logits(self, pixels, *, views=1):
        return np.log(self.probabilities(pixels, views=views))


def client(classifier=None, **options):
    return TestClient(
        application(classifier or Fixed(), ABOUT, **options), base_url=LOCAL, raise_server_exceptions=False
    )


@pytest.mark.parametrize(("confidence", "sure"), [(0.2, True), (0.21, False), (None, None)])
def test_with_a_threshold_an_answer_says_whether_it_is_sure(confidence, sure, picture):
    threshold = confidence and Threshold(0.9, confidence, 0.5, 0.92, (0.8, 0.96), 50)
    served = client(threshold=threshold)
    assert served.post("/predict", content=picture).json().get("sure") is sure
    told = served.get("/model").json().get("threshold")
    assert told is None if confidence is None else (told["confidence"], told["images"]) == (confidence, 50)


def test_an_image_gets_the_answer_of_predict(run, picture, tmp_path):
    classifier = load(run, machine=CPU)
    (tmp_path / "a.png").write_bytes(picture)
    [[expected], _] = predict_files(classifier, [tmp_path / "a.png"], top=3)
    answer = client(classifier).post("/predict?top=3", content=picture)
    assert answer.status_code == 200 and answer.json()["class"] == expected.label
    said = [(row["class"], row["probability"]) for row in answer.json()["ranking"]]
    assert [name for name, _ in said] == [name for name, _ in expected.ranking]
    assert [value for _, value in said] == pytest.approx([value for _, value in expected.ranking], abs=1e-6)


def test_it_tells_what_it_serves():
    told = client().get("/model").json()
    assert told["classes"][:2] == ["cat", "dog"] and told["image_size"] == [8, 8] and told["channels"] == 1
    assert (told["recipe"], told["data"], told["source"]) == ("general", "tiny", "runs/x")
    assert client().get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "words"),
    [
        ("POST", "/predict", b"", {}, 400, "the body is empty; send the bytes of an image"),
        ("POST", "/predict", b"<svg/>", {}, 400, "it is no PNG, JPEG, WebP, GIF or BMP image"),
        ("POST", "/predict", b"x" * (LARGEST_BODY + 1), {}, 413, "the image has 16,777,217 bytes; at most 16,777,216 are taken"),
        ("POST", "/predict", b"x", {"content-type": "multipart/form-data; boundary=b"}, 415, "send the image itself, not a form"),
        ("POST", "/predict?top=0", b"x", {}, 400, "top is '0'; give 1 to 3"),
        ("POST", "/predict?top=4", b"x", {}, 400, "top is '4'; give 1 to 3"),
        ("POST", "/predict?top=%C2%B2", b"x", {}, 400, "give 1 to 3"),
        ("POST", "/predict?top=99999999999999", b"x", {}, 400, "give 1 to 3"),
        ("POST", "/predict?top=0000000000000003", b"x", {}, 400, "give 1 to 3"),
        ("POST", "/predict?top=" + "0" * 5000 + "3", b"x", {}, 400, "give 1 to 3"),
        ("GET", "/model", None, {"x": "a" * (1 << 15)}, 431, "the headers have more than 16,384 bytes"),
        ("GET", "/model", None, {"sec-fetch-site": "cross-site"}, 403, "pages of other sites may not use this server"),
        ("GET", "/", None, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403, "pages of other sites may not"),
        ("GET", "/predict", None, {}, 405, "there is no GET /predict; there are GET /, GET /model"),
        ("DELETE", "/model", None, {}, 405, "there is no DELETE /model; there are GET /,"),
        ("GET", "/page/../../../etc/passwd", None, {}, 404, "; there are GET /, GET /model, GET /health and POST /predict"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", None, {}, 404, "; there are GET /, GET /model, GET /health and POST /predict"),
        ("GET", "/model", None, {"host": "evil.example"}, 403, "names of this computer only, not to 'evil.example'"),
        ("GET", "/model", None, {"host": "127.0.0.1.evil.example:8000"}, 403, "this server answers to"),
        ("GET", "/model", None, {"host": "[::1"}, 403, "this server answers to"),
        ("POST", "/predict", b"x", {"origin": "null"}, 403, "pages of 'null' may not use this server"),
        ("POST", "/predict", b"x", {"origin": "http://127.0.0.1:9000"}, 403, "may not use this server"),
        ("POST", "/predict", b"x", {"origin": "http://[::1"}, 403, "may not use this server"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(method, path, content, headers, status, words):
    answer = client().request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    assert words in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_image_that_would_unpack_to_gigabytes_is_refused_by_its_header():
    content = bytearray(png(np.zeros((1, 1), np.uint8)))
    content[16:24] = (10_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    answer = client().post("/predict", content=bytes(content))
    assert (
        answer.status_code == 400 and "10000 x 10000 pixels are above the limit of 16,000,000" in answer.json()["error"]
    )


def test_the_page_of_this_server_may_use_it_and_no_other_may_frame_it(picture):
    answer = client().post("/predict", content=picture, headers={"origin": LOCAL})
    assert answer.status_code == 200
    page = client().get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})  # a link to it
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "http" not in page.text.replace("<!doctype html>", "")  # nothing is fetched from elsewhere


def test_other_computers_need_the_token():
    remote = client(any_host=True, token="secret")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "secrét".encode()},
        {"authorization": "Bearer "},
    ):
        answer = remote.get("/model", headers=headers)
        assert answer.status_code == 401 and answer.json()["error"] == "send the token: Authorization: Bearer TOKEN"
    assert remote.post("/predict", content=b"x").status_code == 401
    assert remote.get("/model", headers={"authorization": "Bearer secret", "host": "my.computer"}).status_code == 200
    assert remote.get("/model", headers={"authorization": "bearer secret"}).status_code == 200
    assert remote.get("/").status_code == remote.get("/health").status_code == 200


def test_a_failure_is_told_without_what_failed(picture):
    answer = client(Fixed(fails=True)).post("/predict", content=picture)
    assert answer.status_code == 500 and answer.json() == {"error": "the server failed; its terminal says why"}
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_answer_that_is_no_number_is_told(picture):
    answer = client(Fixed(of=np.nan)).post("/predict", content=picture)
    assert answer.status_code == 400 and answer.json()["error"] == "the network's answer to this image is no number"


def test_too_many_at_once_are_told_to_come_again(picture):
    app = application(Fixed(), ABOUT)
    service = service_of(app)
    service.inside = WAITING
    answer = TestClient(app, base_url=LOCAL).post("/predict", content=picture)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert answer.json()["error"] == "too many images at once; send this one again"
    service.inside = 0
    assert TestClient(app, base_url=LOCAL).post("/predict", content=picture).status_code == 200 and service.inside == 0


def test_a_sender_that_is_too_slow_or_announces_nothing_is_bounded(monkeypatch):
    def request(parts, pause):
        async def stream():
            for part in parts:
                await asyncio.sleep(pause)
                yield part

        return SimpleNamespace(headers={}, stream=stream)

    with pytest.raises(HTTPException) as large:  # in the time that there is, however busy the machine
        asyncio.run(received(request([b"x" * (1 << 20)] * 17, 0)))
    assert large.value.status_code == 413 and "the image is larger than 16,777,216 bytes" in large.value.detail
    monkeypatch.setattr("thumbnet.shipping.serving.endpoints.SECONDS_TO_SEND", 0.05)
    with pytest.raises(HTTPException) as slow:
        asyncio.run(received(request([b"x"] * 100, 0.02)))
    assert slow.value.status_code == 408 and "did not arrive within 0.05 seconds" in slow.value.detail


def service_of(app):
    """What answers POST /predict."""
    [endpoint] = [route.endpoint for route in app.app.routes if route.path == "/predict"]
    return endpoint.__self__


@contextmanager
def answering(app):
    """A real server in this process, set as `serve` sets it; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(settings(app))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(timeout=30)
        assert not thread.is_alive()


def ask(port, content, path="/predict"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST" if content is not None else "GET", path, body=content)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


NOISE = [
    b"", b"\r\n\r\n", b"GET", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhalf",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /model HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * (1 << 17) + b"\r\n\r\n",
    b"GET /model HTTP/1.1\r\n\r\n", b"GET /model HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
]  # fmt: skip


def test_noise_and_senders_that_leave_do_not_end_it(picture):
    app = application(Fixed(), ABOUT)
    with answering(app) as port:
        for noise in NOISE:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                raw.sendall(noise)
                raw.settimeout(0.5)
                said = b""
                with suppress(OSError):
                    said = raw.recv(1000)
            fine = b"HTTP/1.1 200" if b"GET" in noise else b"none"  # some of it is nearly HTTP
            assert not said.startswith((b"HTTP/1.1 5", b"HTTP/1.1 2")) or said.startswith(fine), (noise[:60], said)
            assert ask(port, picture)[0] == 200, noise[:60]
        for _ in range(2 * WAITING):  # each leaves in the middle of its image
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhalf")
        answers = (
            ask(port, picture)[0] for _ in range(100) if not time.sleep(0.05)
        )  # they are noticed one after the other
        assert 200 in answers
    assert service_of(app).inside == 0


def test_silent_connections_end_and_do_not_keep_others_out(picture, monkeypatch):
    monkeypatch.setattr("thumbnet.shipping.serving.connections.SECONDS_SILENT", 1.0)
    with answering(application(Fixed(), ABOUT)) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        dripping = socket.create_connection(("127.0.0.1", port))
        dripping.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n")
        assert ask(port, picture)[0] == 200
        dripping.settimeout(10)
        assert b"413" in dripping.recv(100)
        for raw in (*silent, dripping):
            raw.settimeout(10)
            with suppress(ConnectionResetError):
                while raw.recv(1000):  # until the server ends it
                    pass
            raw.close()
        assert ask(port, picture)[0] == 200


def test_many_senders_at_once_all_get_their_own_answer(run, tiny):
    classifier = load(run, machine=CPU)
    pixels = tiny.development.images[:40]
    names = classifier.predict(pixels[:, 0].numpy())
    contents = [png(image[0].numpy()) for image in pixels]
    with answering(application(classifier, ABOUT)) as port, ThreadPoolExecutor(8) as senders:
        found = list(senders.map(lambda content: ask(port, content), contents * 3))
    assert [status for status, _ in found] == [200] * 120
    assert [answer["class"] for _, answer in found] == [*names, *names, *names]


def test_the_page_shows_answers_and_names_as_text(picture):
    """In a real browser: two files are dropped, one of them no image; markup in names stays text."""
    told = []
    script = """<script>
      const bytes = Uint8Array.from(atob('PNG'), c => c.charCodeAt(0));
      const files = new DataTransfer();
      files.items.add(new File([bytes], "<b>a.png"));
      files.items.add(new File(["no image"], "b.txt"));
      document.dispatchEvent(new DragEvent("drop", { dataTransfer: files }));
      const look = () => {
        const said = [...document.querySelectorAll("#answers h2")].map(e => e.textContent);
        if (said.length < 2 || said.includes("…") || find("about").textContent.trim() === "") return setTimeout(look, 50);
        fetch("told", { method: "POST", body: JSON.stringify({ said, title: document.title,
          files: [...document.querySelectorAll("#answers small")].map(e => e.textContent),
          bold: document.querySelectorAll("#answers b, #answers .row img").length, rows: document.querySelectorAll(".row").length,
          about: find("about").textContent, wide: document.documentElement.scrollWidth - innerWidth,
          trouble: find("trouble").hidden }) });
      };
      look();
    </script>""".replace("PNG", base64.b64encode(picture).decode())

    async def harness(request):
        return HTMLResponse((PAGE / "index.html").read_text(encoding="utf-8") + script)

    async def keep(request):
        told.append(json.loads(await request.body()))
        done.set()
        return Response(status_code=204)

    done = threading.Event()
    routes = [
        Route("/harness", harness),
        Route("/told", keep, methods=["POST"]),
        Mount("/", application(Fixed(), ABOUT)),
    ]
    chromium = browser.chromium()
    with answering(Starlette(routes=routes)) as port, browser.opened(chromium, f"http://127.0.0.1:{port}/harness"):
        assert done.wait(timeout=120)
    [found] = told
    assert found["said"] == [
        "cannot read image of 8 bytes: it is no PNG, JPEG, WebP, GIF or BMP image, or a damaged one; replace or remove it",
        "<img src=x onerror=document.title='run'>, 20.0%",
    ]
    assert found["files"] == ["b.txt", "<b>a.png"] and found["bold"] == 0 and found["title"] == "thumbnet"
    assert found["rows"] == 3 and found["trouble"] and found["wide"] <= 0
    assert found["about"] == "general, trained on tiny: 3 classes, images of 8 x 8"


@pytest.fixture
def started():
    """Starts `thumbnet serve` and gives process and address; what still runs is ended."""
    processes = []

    def start(*words, cwd):
        command = [sys.executable, "-m", "thumbnet.cli.main", "serve", *map(str, words), "--port", "0", "--json"]
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process, json.loads(process.stdout.readline())["address"]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_asked_to_end(run, picture, started, number, tmp_path):
    process, address = started(run.path, "--threads", 1, cwd=tmp_path)
    port = int(address.rstrip("/").rpartition(":")[2])
    assert address == f"http://127.0.0.1:{port}/"
    assert ask(port, picture)[0] == 200
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "ended\n")


def test_a_second_ctrl_c_breaks_off_what_still_arrives(run, started, tmp_path):
    process, address = started(run.path, "--threads", 1, cwd=tmp_path)
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100000\r\n\r\nthe beginning"
        client.sendall(head.encode())
        assert ask(port, None, "/health")[0] == 200  # the upload was begun before
        process.send_signal(signal.SIGINT)
        refused_from(port)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS_TO_END / 2)
    assert (process.returncode, said) == (0, "ended\n")


def refused_from(port):
    """Wait until nobody listens there any more."""
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("the server goes on listening")


def test_a_signal_at_the_moment_the_address_is_told_ends_it_as_well(monkeypatch):
    monkeypatch.setattr("thumbnet.shipping.serving.server.load", lambda run, machine: Fixed())
    monkeypatch.setattr("thumbnet.shipping.serving.server.about", lambda run, classifier: ABOUT)
    for _ in range(20):  # each would go on for ever, or end this process
        serve("model.onnx", port=0, tell=lambda address: signal.raise_signal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_sure_comes_down_to_is_told_and_handed_to_the_answers(run, monkeypatch):
    given, told = {}, []
    monkeypatch.setattr("thumbnet.shipping.serving.server.application", lambda *parts, **options: given.update(options))
    serve(
        run, port=0, sure=0.3, tell=lambda address: signal.raise_signal(signal.SIGTERM), note=told.append, machine=CPU
    )
    assert given["threshold"].target == 0.3 and told == [given["threshold"].in_words()]
    assert told[0].startswith("sure from ")


def test_an_exported_file_is_served_without_torch(run, tiny, picture, tmp_path):
    pytest.importorskip("onnxruntime")
    export(run, tmp_path / "model.onnx", data=tiny)
    (tmp_path / "a.png").write_bytes(picture)
    code = """
import http.client, os, signal, sys, threading, thumbnet
def ask(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/predict", body=open("a.png", "rb").read())
    print(connection.getresponse().status, "torch" in sys.modules, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
def tell(address):
    threading.Thread(target=ask, args=[int(address.rstrip("/").rpartition(":")[2])]).start()
thumbnet.serve("model.onnx", port=0, tell=tell)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200", "False"]


def test_what_cannot_be_served_is_told_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1 port {port}: .*; choose another with --port"):
            serve(tmp_path, port=port)
    with pytest.raises(UserError, match="port is 70000; give 0 to 65535"):
        serve(tmp_path, port=70000)
    with pytest.raises(
        UserError, match=r"'0\.0\.0\.0' lets other computers in; say so with --allow-remote, and they need a token"
    ):
        serve(tmp_path, host="0.0.0.0")
    result = thumbnet_command("serve", "none", "--port", "0", cwd=tmp_path)
    assert result.returncode == 2 and "there is no run folder none" in result.stderr


def test_the_token_is_in_the_address_and_can_be_chosen(monkeypatch):
    monkeypatch.setattr("thumbnet.shipping.serving.server.load", lambda run, machine: Fixed())
    monkeypatch.setattr("thumbnet.shipping.serving.server.about", lambda run, classifier: ABOUT)
    told = []

    def tell(address):
        told.append(address)
        signal.raise_signal(signal.SIGINT)

    options = {"port": 0, "tell": tell}
    monkeypatch.setenv("THUMBNET_TOKEN", "mine-mine-mine-mine")
    serve("m.onnx", host="0.0.0.0", allow_remote=True, **options)
    serve("m.onnx", **options)  # asked for on this computer as well
    monkeypatch.delenv("THUMBNET_TOKEN")
    serve("m.onnx", allow_remote=True, **options)  # behind a proxy
    serve("m.onnx", **options)
    assert told[0].startswith(f"http://{socket.gethostname()}:") and told[0].endswith("/#mine-mine-mine-mine")
    assert told[1].endswith("/#mine-mine-mine-mine") and len(told[2].partition("#")[2]) >= 20 and "#" not in told[3]
    monkeypatch.setenv("THUMBNET_TOKEN", "a b")
    with pytest.raises(UserError, match="THUMBNET_TOKEN is no token: give 16 or more of letters, digits and"):
        serve("m.onnx", **options)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_of_another_computer_is_told(host, tmp_path):
    with pytest.raises(UserError, match=rf"{host} is no address of this computer; give another --host"):
        serve(tmp_path, host=host, port=0, allow_remote=True)


ORIENTED = Image.Exif()
ORIENTED[274] = 6  # turned by a quarter


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "P", {}), ("PNG", "RGBA", {}), ("PNG", "LA", {}), ("PNG", "1", {}),
        ("PNG", "I;16", {}), ("JPEG", "RGB", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"exif": ORIENTED}), ("WEBP", "RGBA", {}),
        ("GIF", "P", {}), ("BMP", "RGB", {}),
    ],
)  # fmt: skip
def test_one_picture_gets_one_answer_four_ways(format, mode, options, everywhere, tiny, tmp_path):
    """By the network on the pixels, by `predict` on the file, by the server, and by the exported file."""
    by_run, by_file, server = everywhere
    random = np.random.default_rng(3)
    picture = Image.fromarray(random.integers(0, 256, (37, 52, 4), np.uint8), "RGBA")
    picture = (
        Image.fromarray(random.integers(0, 65536, (37, 52), np.uint16)) if mode == "I;16" else picture.convert(mode)
    )
    path = tmp_path / f"picture.{format.lower()}"
    picture.save(path, format, **options)
    [expected] = by_run.predict_proba([path])
    np.testing.assert_allclose(by_file.predict_proba([path])[0], expected, atol=1e-5)
    [[row], _] = predict_files(by_run, [path], top=10)
    np.testing.assert_allclose([value for _, value in row.ranking], np.sort(expected)[::-1], atol=1e-6)
    answer = server.post("/predict?top=10", content=path.read_bytes()).json()["ranking"]
    assert [place["class"] for place in answer] == [name for name, _ in row.ranking]
    np.testing.assert_allclose([place["probability"] for place in answer], np.sort(expected)[::-1], atol=2e-6)


@pytest.fixture(scope="module")
def everywhere(run, tiny, tmp_path_factory):
    """The classifier of a run, of its export, and a client of its server."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("everywhere") / "model.onnx"
    export(run, path, data=tiny)
    classifier = load(run, machine=CPU)
    return classifier, load(path), client(classifier)
