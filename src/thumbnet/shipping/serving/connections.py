"""uvicorn's connections with a limit to how long one may say nothing: uvicorn itself waits for ever for a request to begin."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_SILENT = 10.0  # in which the head of a request must have come, counted from the connection or the last answer


class Connection(H11Protocol):
    """HTTP/1.1 for one client; ends where no request is being answered for `SECONDS_SILENT`."""

    silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.silence:
            self.silence.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.expect_request()

    def expect_request(self) -> None:
        """Count from now."""
        if self.silence:
            self.silence.cancel()
        self.silence = self.loop.call_later(SECONDS_SILENT, self.end_if_silent)

    def end_if_silent(self) -> None:
        """Close, unless a request is being answered; its body has a limit of its own."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()  # what lies in the pipe of a client that does not read is not waited for
