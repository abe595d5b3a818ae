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

import torch

from thumbnet.backend import environment, prepare
from thumbnet.machine import Machine
from thumbnet.runs import now

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "reliability.json"
TESTS = ("tests/reliability", "tests/test_messages.py", "tests/test_security.py")


def run_tests(record: Path) -> tuple[str, int]:
    """The summary line of the tests at full counts, and its seconds."""
    start = time.monotonic()
    variables = os.environ | {"THUMBNET_TESTS": "full", "THUMBNET_RECORD": str(record)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-rs", *TESTS], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines.append(line.strip())
    if process.wait():
        sys.exit("a test failed; nothing is recorded")
    return re.sub(r"^=+ | in [\d.]+s.*$", "", lines[-1]), round(time.monotonic() - start)


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


def main() -> None:
    parts = sys.argv[1:] or ["tests", "defects"]
    if not set(parts) <= {"tests", "defects"}:
        sys.exit(__doc__)
    if "tests" in parts and os.geteuid():
        print("note: not the superuser, so the tests that mount a small disk are skipped", file=sys.stderr)
    about = environment(prepare(Machine(device="cpu")))
    record = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {"promises": [], "defects": []}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            if part == "tests":
                record["tests"], record["seconds"] = run_tests(Path(folder) / "record")
                record["promises"] = grouped(Path(folder) / "record")
            else:
                record["defects"] = plant_defects(Path(folder) / "defects.json")
            record |= {"kind": "reliability", "command": "make test-full", f"{part}_time": now()}
            record |= {f"{part}_commit": about["commit"], "threads": torch.get_num_threads()}
            record |= {key: about[key] for key in ("python", "torch", "numpy", "platform", "processor")}
            OUT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(OUT)


if __name__ == "__main__":
    main()
