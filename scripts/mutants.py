"""Plant one defect after the other in a copy of the package: the test named for it must fail, or it proves nothing.

    python scripts/mutants.py [--json FILE] [NAME ...]

tests/mutants.toml lists the defects. Each named test is first run on the copy as it is and must pass.
"""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "mutants.toml"
SKIPPED = re.compile(r" SKIPPED |\d skipped")
SECONDS = 300  # for one test; longer means that the defect made it hang, which is noticed too


def run_test(test: str, package: Path) -> str:
    """How a test ends with this copy of the package: "passed", "failed", "skipped" or "hung"."""
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("THUMBNET_RECORD", None)
    command = [sys.executable, "-m", "pytest", "-x", "-v", "-p", "no:cacheprovider", *shlex.split(test)]
    with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in what a hanging test leaves behind
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
        )
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return "hung"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        told = output.read()
    if code == 0:
        return "skipped" if SKIPPED.search(told) and " passed" not in told else "passed"
    if code == 1:
        return "failed"
    sys.exit(f"{test} cannot be run:\n{told[-4000:]}")


def plant(defect: dict[str, str], package: Path) -> None:
    """Change the copy; the text to replace must be there exactly once."""
    path = package / "thumbnet" / defect["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(defect["old"]) != 1:
        sys.exit(
            f"{defect['name']}: {defect['file']} has the text to replace {text.count(defect['old'])} times, not once"
        )
    changed = text.replace(defect["old"], defect["new"])
    if path.suffix == ".py":
        ast.parse(changed)  # a defect, not nonsense; C that does not compile would skip the test, which is noticed too
    path.write_text(changed, encoding="utf-8")


def main() -> None:
    words = sys.argv[1:]
    target = words.pop(words.index("--json") + 1) if "--json" in words else None
    words = [word for word in words if word != "--json"]
    defects = tomllib.loads(LIST.read_text(encoding="utf-8"))["defect"]
    chosen = [defect for defect in defects if not words or defect["name"] in words]
    if not chosen:
        sys.exit(f"no defect is named {' or '.join(words)}; there are: {', '.join(d['name'] for d in defects)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "results").symlink_to(ROOT / "results")
        healthy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", healthy, ignore=shutil.ignore_patterns("__pycache__"))
        sound = {test: run_test(test, healthy) for test in dict.fromkeys(defect["test"] for defect in chosen)}
        if broken := [test for test, outcome in sound.items() if outcome in ("failed", "hung")]:
            sys.exit(f"without any defect these tests fail: {', '.join(broken)}")
        for defect in chosen:
            start = time.monotonic()
            if sound[defect["test"]] == "skipped":
                outcome = "skipped"
            else:
                mutated = Path(folder) / "mutant" / "src"
                shutil.copytree(healthy, mutated)
                (mutated.parent / "results").symlink_to(ROOT / "results")
                plant(defect, mutated)
                outcome = {"passed": "SURVIVED", "failed": "caught", "hung": "caught"}[
                    run_test(defect["test"], mutated)
                ]
                shutil.rmtree(mutated.parent)
            rows.append({"name": defect["name"], "test": defect["test"], "outcome": outcome})
            print(f"{outcome:9} {time.monotonic() - start:4.0f} s  {defect['name']}", flush=True)
    caught = sum(row["outcome"] == "caught" for row in rows)
    print(f"{caught} of {len(rows)} planted defects caught")
    if target:
        Path(target).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.exit(caught < sum(row["outcome"] != "skipped" for row in rows))


if __name__ == "__main__":
    main()
