"""How much a reliability test does, and what it showed, for the table of promises.

`make test` does the small counts, `make test-full` (THUMBNET_TESTS=full) the full ones. With THUMBNET_RECORD set to a file,
every test that held its promise adds a line to it; scripts/reliability.py makes results/reliability.json of them.
"""

import json
import os
from pathlib import Path

import pytest

FULL = os.environ.get("THUMBNET_TESTS") == "full"


def count(small: int, full: int) -> int:
    """How often to do it, in this run of the tests."""
    return full if FULL else small


def held(key: str, promise: str, cases: int, result: str) -> None:
    """Note that `promise` held in `cases` cases; `result` is one short sentence with what was measured."""
    row = {"key": key, "promise": promise, "cases": cases, "result": result, "test": name_of_test()}
    print(json.dumps(row))
    if target := os.environ.get("THUMBNET_RECORD"):
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def name_of_test() -> str:
    """`tests/reliability/test_x.py::test_y`, as pytest notes it for the test that runs."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0].split("[")[0]


linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
