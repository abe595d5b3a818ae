"""Run the tests of reliability with their full counts, plant every defect, and write down what held: results/reliability.json.

    python scripts/reliability.py [tests] [defects]

Both by default, under an hour on two cores. Of a part in which a test fails or a defect survives nothing is written.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from thumbnet.backend import environment, prepare
from thumbnet.locks import now
from thumbnet.machine import Machine

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "reliability.json"
TESTS = ("tests/reliability", "tests/test_security.py", "tests/test_messages.py")


def run_tests(record: Path) -> tuple[str, int]:
    """How many tests passed at full counts and how many were skipped, and the seconds."""
    start = time.monotonic()
    variables = os.environ | {"THUMBNET_TESTS": "full", "THUMBNET_RECORD": str(record), "OMP_NUM_THREADS": "1"}
    words = ["--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadgroup", "-rs", *TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
    )
    told = done.stdout
    print(told, flush=True)
    if done.returncode:
        sys.exit("a test failed; nothing is recorded")
    passed, skipped = (sum(map(int, re.findall(rf"(\d+) {word}", told))) for word in ("passed", "skipped"))
    return f"{passed} passed, {skipped} skipped", round(time.monotonic() - start)


def plant_defects(target: Path) -> list[dict[str, str]]:
    """What scripts/mutants.py found."""
    command = [sys.executable, ROOT / "scripts" / "mutants.py", "--json", target]
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit("a planted defect survived; nothing is recorded")
    return json.loads(target.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def grouped(record: Path) -> list[dict[str, object]]:
    """One row per promise: its cases added up, what was measured, and the tests."""
    rows: dict[str, dict[str, object]] = {}
    for line in record.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        row = rows.setdefault(
            told["promise"], {"key": told["key"], "promise": told["promise"], "cases": 0, "measured": [], "tests": []}
        )
        row["cases"] += told["cases"]
        for name, value in (("measured", told["result"]), ("tests", told["test"])):
            if value not in row[name]:  # type: ignore[operator]
                row[name].append(value)  # type: ignore[attr-defined]
    letters = re.compile(r"(\D+)(\d+)")
    return sorted(rows.values(), key=lambda row: [(a, int(n)) for a, n in letters.findall(str(row["key"]))])


def write_part(part: str, found: dict[str, object]) -> None:
    """Put what a part found, with the time and what it ran on, beside what the other part has written."""
    about = environment(prepare(Machine(device="cpu")))
    record = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {"promises": [], "defects": []}
    record |= {"kind": "reliability", "command": "make test-full", **found}
    record |= {f"{part}_time": now(), f"{part}_commit": about["commit"], "threads": about["threads"]}
    record |= {key: about[key] for key in ("python", "torch", "numpy", "platform", "processor")}
    OUT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parts = sys.argv[1:] or ["tests", "defects"]
    if not set(parts) <= {"tests", "defects"}:
        sys.exit(__doc__)
    if "tests" in parts and os.geteuid():
        print("note: not the superuser, so the tests that mount a small disk are skipped", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        if "tests" in parts:
            passed, seconds = run_tests(Path(folder) / "record")
            write_part("tests", {"tests": passed, "seconds": seconds, "promises": grouped(Path(folder) / "record")})
        if "defects" in parts:
            write_part("defects", {"defects": plant_defects(Path(folder) / "defects.json")})
    print(OUT)


if __name__ == "__main__":
    main()
