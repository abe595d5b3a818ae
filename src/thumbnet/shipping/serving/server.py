"""A classifier behind an address of this computer, until Ctrl-C."""

import asyncio
import errno
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from thumbnet.errors import UserError
from thumbnet.machine import Machine
from thumbnet.runs.run import Run
from thumbnet.shipping.classifier import Classifier
from thumbnet.shipping.exported import ExportedClassifier, exported_file
from thumbnet.shipping.loading import load, sure_from
from thumbnet.shipping.serving.connections import Connection
from thumbnet.shipping.serving.endpoints import About, application
from thumbnet.shipping.serving.guard import LARGEST_HEADERS, is_loopback

TOKEN = "THUMBNET_TOKEN"
MOST_CONNECTIONS = 512  # more are answered with 503; a silent one costs some kilobytes, for ten seconds
SECONDS_IDLE = 5  # for which a connection is kept for the next request
SECONDS_TO_END = 10  # for requests that are being answered when the server is asked to end


def serve(
    run: "Run | str | Path",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_remote: bool = False,
    sure: float | None = None,
    machine: Machine | None = None,
    tell: Callable[[str], None] = print,
    note: Callable[[str], None] = lambda told: None,
) -> None:
    """Answer on http://HOST:PORT for a finished run, or a FILE.onnx or folder that `export` wrote, until SIGINT or SIGTERM.

    `tell` is given the address once the server listens, `note` what `sure` comes down to. With port 0 the system picks a free
    one. Another host than this computer alone needs `allow_remote`, which answers under any name (behind a proxy too) and asks
    every request for the token that the address ends in: THUMBNET_TOKEN, else a new one. With `sure`, an accuracy, answers say
    whether they reach the probability from which on so many answers on the validation images were right. Raises `UserError` where
    the port is taken or there is nothing to serve.
    """
    if not allow_remote and not is_loopback(host):
        raise UserError(f"--host {host!r} lets other computers in; say so with --allow-remote, and they need a token")
    token = chosen_token(required=allow_remote)
    with listening_on(host, port) as listening:
        opened = run if isinstance(run, Run) or exported_file(run) else Run.open(run)
        classifier = load(opened, machine=machine)
        threshold = None if sure is None else sure_from(opened, classifier, sure)
        if threshold:
            note(threshold.in_words())
        told = about(opened, classifier)
        app = application(classifier, told, any_host=allow_remote, token=token, threshold=threshold)
        server = uvicorn.Server(settings(app))
        with ended_by_signals(server):
            tell(address_of(host, listening.getsockname()[1]) + (f"#{token}" if token else ""))
            server.run(sockets=[listening])


def chosen_token(*, required: bool) -> str | None:
    """What the environment says, else a new one where one is `required`."""
    token = os.environ.get(TOKEN)
    if token and not re.fullmatch("[A-Za-z0-9._~-]{16,}", token):
        raise UserError(f"{TOKEN} is no token: give 16 or more of letters, digits and . _ ~ -")
    return token or (secrets.token_urlsafe(16) if required else None)


@contextmanager
def listening_on(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to the address, before anything is loaded."""
    if not 0 <= port <= 65535:
        raise UserError(f"port is {port}; give 0 to 65535")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL or (error.errno or 0) < 0:  # those of getaddrinfo are negative
            raise UserError(f"{host} is no address of this computer; give another --host") from error
        hint = "choose another with --port, or --port 0 for any that is free"
        raise UserError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}; {hint}") from error
    with listening:
        yield listening


def address_of(host: str, port: int) -> str:
    """What to type into a browser: a name of this computer where it listens on all of its addresses."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def about(run: "Run | str | Path", classifier: Classifier) -> About:
    """What is served, in names."""
    if isinstance(run, Run):
        return About(run.path.resolve().name, run.recipe.name, run.data.title)
    assert isinstance(classifier, ExportedClassifier)
    return About(Path(run).resolve().name, classifier.facts.recipe, classifier.facts.data)


def settings(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn is run."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=Connection,
        ws="none",
        lifespan="off",
        log_level="error",  # a line for each request that is no HTTP would let anybody fill the terminal
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LARGEST_HEADERS,
        timeout_keep_alive=SECONDS_IDLE,
        timeout_graceful_shutdown=SECONDS_TO_END,
    )
    logging.getLogger("uvicorn.error").addFilter(is_worth_a_traceback)
    return config


def is_worth_a_traceback(record: logging.LogRecord) -> bool:
    """Not where a request was broken off by the end: told twice, or after `SECONDS_TO_END`."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


@contextmanager
def ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the server, which is how a server ends, from here on: also before uvicorn catches them itself.

    When it has ended, uvicorn raises them again for who stood there before, and that is the server too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers
        return
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
