"""Counts and times as a person reads them."""


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


def shortened(name: str, limit: int = 40) -> str:
    """A name cut to so many letters, so that a table with it can be read."""
    return name if len(name) <= limit else name[: limit - 1] + "\u2026"
