"""A classifier behind an address of this computer, until Ctrl-C."""

import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvicorn

from thumbnet.classifier import Classifier
from thumbnet.errors import UserError
from thumbnet.exported import ExportedClassifier
from thumbnet.loading import load
from thumbnet.machine import Machine
from thumbnet.runs import Run
from thumbnet.serving.endpoints import About, application
from thumbnet.serving.guard import LOOPBACK

TOKEN = "THUMBNET_TOKEN"
MOST_CONNECTIONS = 128  # more are refused with 503, so that idle ones cannot take all memory
LARGEST_HEADERS = 16 << 10  # bytes
SECONDS_IDLE = 5  # for which a connection is kept for the next request
SECONDS_TO_END = 10  # for requests that are being answered when the server is asked to end


def serve(
    run: "Run | str | Path",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_remote: bool = False,
    machine: Machine | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Answer on http://HOST:PORT for a finished run or an exported FILE.onnx, until SIGINT or SIGTERM.

    `tell` is given the address once the server listens. With port 0 the system picks a free one. Another host than this computer
    alone needs `allow_remote`; then every request needs the token that the address ends in (THUMBNET_TOKEN, else a new one).
    Raises `UserError` where the port is taken or there is nothing to serve.
    """
    if host not in LOOPBACK and not allow_remote:
        raise UserError(f"--host {host} lets other computers in; say so with --allow-remote, and they need a token")
    token = (os.environ.get(TOKEN) or secrets.token_urlsafe(16)) if host not in LOOPBACK else None
    listening = listen(host, port)
    try:
        classifier = load(run, machine=machine)
        warm_up(classifier)
        app = application(classifier, about(run, classifier), host=host, token=token)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
        tell(address + (f"#{token}" if token else ""))
        answer(app, listening)
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, before anything is loaded."""
    if not 0 <= port <= 65535:
        raise UserError(f"port is {port}; give 0 to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        hint = "choose another with --port, or --port 0 for any that is free"
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror}; {hint}") from error


def about(run: "Run | str | Path", classifier: Classifier) -> About:
    """What is served, in names."""
    if isinstance(classifier, ExportedClassifier):
        return About(Path(str(run)).name, classifier.facts.recipe, classifier.facts.data)
    opened = run if isinstance(run, Run) else Run.open(run)
    return About(str(opened.path), opened.recipe.name, opened.data["name"])


def warm_up(classifier: Classifier) -> None:
    """Compute one image, so that the first one sent does not wait for what is prepared on first use."""
    classifier.probabilities(np.zeros((1, classifier.channels, *classifier.image_size), np.uint8))


def answer(app: object, listening: socket.socket) -> None:
    """Run until a signal asks to end, which is how a server ends: requests being answered are finished first."""
    settings = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LARGEST_HEADERS,
        timeout_keep_alive=SECONDS_IDLE,
        timeout_graceful_shutdown=SECONDS_TO_END,
        ws="none",
        http="h11",
    )
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:  # uvicorn catches the signal, ends, and raises it again for who stood there before: for nobody
        uvicorn.Server(settings).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
