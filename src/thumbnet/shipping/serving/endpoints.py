"""The HTTP side of a classifier: bytes of an image in, JSON out, and one page. Bytes never touch the disk, nor a log."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from thumbnet.data.images import decode_image
from thumbnet.errors import UserError
from thumbnet.judging.thresholds import Threshold
from thumbnet.shipping.classifier import Classifier
from thumbnet.shipping.serving.guard import Guard

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
LARGEST_BODY = 16 << 20  # bytes; photographs of telephones have 2 to 12 million
MOST_PIXELS = 16_000_000  # a telephone's usual photograph has 12; decoding one takes up to 25 bytes a pixel, 400 MB
WAITING = 16  # images received or waiting at once: a quarter of a gigabyte at most, besides the one that is decoded
SECONDS_TO_SEND = 10.0  # for a whole image; who is slower holds one of the places above
THERE_IS = "GET /, GET /model, GET /health and POST /predict"
SHOWN = 5  # classes in an answer, unless more are asked for


@dataclass(frozen=True)
class About:
    """What is served, for `GET /model` and the page."""

    source: str  # the name of the run's folder, or of the exported file or folder
    recipe: str
    data: str


class Service:
    """The classifier in a thread of its own, one image at a time, so that the server answers meanwhile."""

    def __init__(self, classifier: Classifier, about: About, threshold: Threshold | None = None):
        self.classifier, self.about, self.threshold = classifier, about, threshold
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")
        self.turn = asyncio.Lock()
        self.inside = 0

    def warm_up(self) -> None:
        """Compute one image, so that the first one sent does not wait for what is prepared on first use."""
        nothing = np.zeros((1, self.classifier.channels, *self.classifier.image_size), np.uint8)
        self.thread.submit(self.classifier.probabilities, nothing).result()

    def classify(self, content: bytes, top: int) -> dict[str, Any]:
        """What `predict --json` says of one image. Raises `UserError` where the bytes are no image."""
        size, channels = self.classifier.image_size, self.classifier.channels
        pixels = decode_image(content, channels=channels, size=size, most_pixels=MOST_PIXELS)
        probabilities = self.classifier.probabilities(pixels[np.newaxis])[0]
        if not np.isfinite(probabilities).all():
            raise UserError("the network's answer to this image is no number")
        ranking = self.classifier.rank(probabilities, top)
        rows = [{"class": name, "probability": round(value, 6)} for name, value in ranking]
        sure = {"sure": ranking[0][1] >= self.threshold.confidence} if self.threshold else {}
        return {**rows[0], "ranking": rows, **sure}

    async def predict(self, request: Request) -> Response:
        """POST /predict: the bytes of an image file."""
        top = wanted(request, len(self.classifier.classes))
        if self.inside >= WAITING:
            raise HTTPException(503, "too many images at once; send this one again", {"Retry-After": "1"})
        self.inside += 1
        try:
            content = await received(request)
            async with self.turn:
                if await request.is_disconnected():  # nobody waits for it any more
                    raise ClientDisconnect
                loop = asyncio.get_running_loop()
                return JSONResponse(await loop.run_in_executor(self.thread, self.classify, content, top))
        except UserError as error:
            raise HTTPException(400, str(error)) from error
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        finally:
            self.inside -= 1

    async def model(self, request: Request) -> Response:
        """GET /model: what is served."""
        of = self.classifier
        facts = {"classes": list(of.classes), "image_size": list(of.image_size), "channels": of.channels}
        threshold = {"threshold": asdict(self.threshold)} if self.threshold else {}
        return JSONResponse({**vars(self.about), **facts, **threshold})


def application(
    classifier: Classifier,
    about: About,
    *,
    any_host: bool = False,
    token: str | None = None,
    threshold: Threshold | None = None,
) -> ASGIApp:
    """The ASGI application that answers for `classifier`: under a name of this computer, or under `any_host`.

    With a `token` only who sends it is answered, but for the page itself and /health.
    GET / is a page, GET /model tells classes and sizes, GET /health that it lives; POST /predict takes the bytes of one PNG,
    JPEG, WebP, GIF or BMP and gives class, probability and ranking, as many as `?top=` asks for, and with a `threshold` whether
    the answer is sure. Errors are {"error": one line}.
    """
    service = Service(classifier, about, threshold)
    service.warm_up()
    pages = [Route(path, static(PAGE / name)) for path, name in FILES.items()]
    routes = [
        *pages,
        Route("/health", health),
        Route("/model", service.model),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: as_error, Exception: as_failure})
    return Guard(app, any_host=any_host, token=token)  # outermost, so that failures have its headers too


def static(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """What gives one file of the page."""

    async def give(request: Request) -> Response:
        return FileResponse(path)

    return give


async def health(request: Request) -> Response:
    """GET /health: that the server answers."""
    return JSONResponse({"status": "ok"})


def wanted(request: Request, classes: int) -> int:
    """How many classes the answer is to name."""
    text = request.query_params.get("top", str(min(SHOWN, classes)))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= classes):
        raise HTTPException(400, f"top is {text[:20]!r}; give 1 to {classes}")
    return int(text)


async def received(request: Request) -> bytes:
    """The whole body, unless it is too large, too slow, empty or wrapped in a form."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(415, "send the image itself, not a form: curl --data-binary @photo.png")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > LARGEST_BODY:
        raise HTTPException(413, f"the image has {int(announced[:20]):,} bytes; at most {LARGEST_BODY:,} are taken")
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS_TO_SEND):
            async for part in request.stream():
                content += part
                if len(content) > LARGEST_BODY:
                    raise HTTPException(413, f"the image is larger than {LARGEST_BODY:,} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"the image did not arrive within {SECONDS_TO_SEND:g} seconds") from error
    if not content:
        raise HTTPException(400, "the body is empty; send the bytes of an image: curl --data-binary @photo.png")
    return bytes(content)


async def as_error(request: Request, error: Exception) -> Response:
    """An error that the sender can mend."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path[:100]}"
    told = f"there is no {asked}; there are {THERE_IS}" if error.status_code in (404, 405) else error.detail
    return JSONResponse({"error": told}, error.status_code, headers=error.headers)


async def as_failure(request: Request, error: Exception) -> Response:
    """One that the sender cannot: its traceback goes to the server's terminal."""
    return JSONResponse({"error": "the server failed; its terminal says why"}, 500)
