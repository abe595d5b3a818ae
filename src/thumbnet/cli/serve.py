"""Classify images for the browsers and programs of this computer."""

import sys
from functools import partial
from json import dumps
from pathlib import Path

from thumbnet.cli.options import Json, Measuring, MeasuringFlags, Whole, described, given, show


@described
def serve(
    run: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: Whole = 8000,
    allow_remote: bool = False,
    sure: float | None = None,
    machine: Measuring = MeasuringFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Serve a page and an address that classify images, until Ctrl-C.

    Parameters
    ----------
    run
        folder written by `thumbnet train`, or a FILE.onnx or a folder written by `thumbnet export`
    host
        the address to listen on; the default is reached from this computer alone
    port
        0 takes one that is free
    allow_remote
        let other computers in, for another --host; they need the token that the printed address ends in
    sure
        say of each answer whether it is sure: 0.99 takes the probability from which on 99 % of the answers on the validation
        images were right
    """
    from thumbnet.machine import Machine
    from thumbnet.shipping.serving import serve

    def tell(address: str) -> None:
        if json:
            print(dumps({"run": str(run), "address": address}))
        else:
            show(f"{address}  (Ctrl-C ends it)")
        sys.stdout.flush()  # who started this may wait for the line

    on, note = Machine(**given(machine)), partial(show, file=sys.stderr)
    serve(run, host=host, port=port, allow_remote=allow_remote, sure=sure, machine=on, tell=tell, note=note)
    show("ended", file=sys.stderr)
