"""What stands in front of every request: pages of other sites that a browser has open cannot use the server, nor frame it."""

import hmac
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/", "/page.css", "/page.js", "/health")  # what needs no token: nothing of the model is in them
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses foreign names of this host (DNS rebinding), foreign origins, and who lacks the token; adds `HEADERS`."""

    def __init__(self, app: ASGIApp, *, host: str, token: str | None):
        self.app, self.host, self.token = app, host, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self.refuse(scope["path"], Headers(scope=scope))
        await (refused or self.app)(scope, receive, send_with_headers)

    def refuse(self, path: str, headers: Headers) -> JSONResponse | None:
        """The answer to a request that is not let in."""
        asked = headers.get("host", "")
        if self.host in LOOPBACK and name_in(f"//{asked}") not in LOOPBACK:
            return refusal(403, f"this server answers to {self.host} only, not to {asked[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and urlsplit_or_none(origin) != asked:
            return refusal(403, f"pages of {origin[:100]!r} may not use this server")
        if self.token is None or path in OPEN:
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return refusal(401, "send the token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        return None


def refusal(status: int, reason: str, headers: MutableMapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers=headers)


def name_in(address: str) -> str | None:
    """The host's name in an address, without its port; None where there is none."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def urlsplit_or_none(address: str) -> Any:
    """Name and port of an origin, as the Host header has them."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None
