"""What stands in front of every request: pages of other sites that a browser has open cannot use the server, nor frame it."""

import hmac
import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_HEADERS = 16 << 10  # bytes
OPEN = ("/", "/page.css", "/page.js", "/health")  # what needs no token: nothing of the model is in them
OTHER_SITES = ("cross-site", "same-site")  # of Sec-Fetch-Site, which browsers send and pages cannot change
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses foreign names of this computer (DNS rebinding), pages of other sites, and who lacks the token; adds `HEADERS`."""

    def __init__(self, app: ASGIApp, *, any_host: bool, token: str | None):
        self.app, self.any_host, self.token = app, any_host, token

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
        if sum(len(name) + len(value) for name, value in headers.raw) > LARGEST_HEADERS:
            return refusal(431, f"the headers have more than {LARGEST_HEADERS:,} bytes")
        asked = headers.get("host", "")
        if not self.any_host and not is_loopback(host_and_port(f"//{asked}")[0]):
            return refusal(403, f"this server answers to names of this computer only, not to {asked[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and host_and_port(origin) != host_and_port(f"//{asked}"):
            return refusal(403, f"pages of {origin[:100]!r} may not use this server")
        if headers.get("sec-fetch-site") in OTHER_SITES and (path, headers.get("sec-fetch-mode")) != ("/", "navigate"):
            return refusal(403, "pages of other sites may not use this server")
        if self.token is None or path in OPEN:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.encode(), self.token.encode()):
            return refusal(401, "send the token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        return None


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says why, after which the connection ends: the body that may follow is not read."""
    return JSONResponse({"error": reason}, status, headers={"Connection": "close", **(headers or {})})


def host_and_port(address: str) -> tuple[str | None, int | None]:
    """Of an address; nothing where it is none."""
    try:
        parts = urlsplit(address)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def is_loopback(host: str | None) -> bool:
    """Whether a name or number means this computer alone."""
    with suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    return False
