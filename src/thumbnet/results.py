"""The published numbers: one JSON per result, written by the program, read by `list` and the README's table."""

import json
from pathlib import Path
from typing import Any

INSTALLED, IN_THE_SOURCES = Path(__file__).parent / "published", Path(__file__).parents[2] / "results"


def folder() -> Path:
    """Where the results lie: in the installed package, or at the root of the source tree."""
    return INSTALLED if INSTALLED.is_dir() else IN_THE_SOURCES


def recorded() -> list[dict[str, Any]]:
    """Every recorded result, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder().glob("*.json"))]


def recorded_for(recipe: str) -> list[str]:
    """One line for every result of a named recipe."""
    return [in_words(result) for result in recorded() if result.get("recipe") == recipe]


def in_words(result: dict[str, Any]) -> str:
    """`83.40 % test accuracy (n = 1) with epochs 16, 12:30 on a processor, bf16`."""
    from thumbnet.progress import duration

    changes = ", ".join(f"{name} {value}" for name, value in result["changes"].items())
    took = f"{duration(result['train_seconds'])} on " if result["train_seconds"] else ""
    return (
        f"{result['test_accuracy']:.2%} test accuracy, {result['test_top5']:.2%} top-5 (n = {result['n']})"
        f"{f' with {changes}' if changes else ''}, {took}{result['processor']}, {result['precision']}"
    )
