"""Counts and times as a person reads and writes them."""

import re
from typing import Any

from thumbnet.errors import UserError

OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}  # seconds


def counted(number: float, one: str, many: str | None = None) -> str:
    """`1 image`, `2,000 images`, `1.4 epochs`; `many` where it is not `one` with an s."""
    shown = f"{int(number):,}" if number == int(number) else f"{number:.4g}"
    return f"{shown} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """`8 s`, `3:05` or `2:03:09`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_in(text: str, flag: str) -> float:
    """Seconds in `90`, `90s`, `2m`, `1.5h`, as given to `flag`. Raises `UserError` for anything else."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h)?\s*", text)
    if match is None:
        raise UserError(f"{flag} is {text!r}; give seconds, minutes or hours, as in 90s, 5m or 1h")
    return float(match[1]) * UNITS[match[2] or ""]


def told_apart(names: list[str], limit: int = 44) -> list[str]:
    """Names of a picture's legend: without the parts between commas that all share, else cut in the middle."""
    parts = [name.split(", ") for name in names]
    shared = set.intersection(*map(set, parts)) if len(names) > 1 else set()
    own = [", ".join(part for part in row if part not in shared) or row[0] for row in parts]
    half = limit // 2
    return [name if len(name) <= limit else f"{name[: half - 1]}\u2026{name[-half:]}" for name in own]


def shortened(name: str, limit: int = 40) -> str:
    """A name cut to so many letters, so that a table with it can be read."""
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"


def printable(name: str) -> str:
    """A name that is text throughout, as files and fonts need it: of a file's name, bytes that are no UTF-8 become `\\udcff`."""
    return name.encode("utf-8", "backslashreplace").decode()


def visible(text: str) -> str:
    """A text for a terminal, which obeys none of it: what controls it or turns the order of letters round becomes `\\x1b`.

    Names come from elsewhere and stay as they are; this is for the place where they are shown.
    """
    return OBEYED.sub(lambda letter: letter[0].encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> str:
    """The same of a text whose lines stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def nats(loss: float) -> str:
    """`0.2676`; of an absurd loss `1.5e+305`, which no table need hold in full."""
    return f"{loss:.4f}" if abs(loss) < 1e5 else f"{loss:.4g}"


def metric_in_words(metric: str) -> str:
    """`top-5 accuracy` for top5."""
    return {"top5": "top-5 accuracy"}.get(metric, metric.replace("_", " "))


def as_words(name: str, value: Any) -> list[str]:
    """A flag as it is typed."""
    flag = f"--{name.replace('_', '-')}"
    return ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]


def as_word(name: str, value: Any) -> str:
    """The same in one word, in which no value can be taken for a flag of its own."""
    return "=".join(as_words(name, value))
