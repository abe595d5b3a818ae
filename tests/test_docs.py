"""The README and the pages are true: commands exist, the tree is the real one, tables come from results/."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from conftest import ONE_THREAD
from thumbnet.cli.main import COMMANDS
from thumbnet.measuring.results import in_words, recorded

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_tree_in_the_readme_is_the_real_one():
    """That it has the order of imports too, tests/test_imports.py tests."""
    from test_imports import ORDER, TREE

    assert len(set(ORDER)) == len(ORDER)
    told = {name.rpartition("/")[0] for name in ORDER}  # folders whose modules the tree has, "" for thumbnet itself
    for folder in told:
        inside = (ROOT / "src" / "thumbnet" / folder).iterdir()
        real = {path.stem for path in inside if path.suffix == ".py" or path.is_dir()} - {"__init__", "__pycache__"}
        assert {name.rpartition("/")[2] for name in ORDER if name.rpartition("/")[0] == folder} == real
    folders = {line.split("/")[0] for line in TREE.splitlines() if line and not line.startswith(" ")}
    assert all((ROOT / folder).is_dir() for folder in folders)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_of_a_page_exists(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_is_understood(page):
    """Names of commands and flags are checked by the parser itself; nothing is run."""
    from thumbnet.cli.main import make_app

    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if re.match(r" {4}thumbnet \w", line)]
    refused = {}
    for words in (shlex.split(line, comments=True)[1:] for line in lines):
        try:
            if "--config" not in words:
                words = words[: words.index("--trust")] if "--trust" in words else words  # which is taken before
                make_app().parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            refused[" ".join(words)] = str(error)
    assert refused == {}


def test_what_is_cited_is_this_version():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_every_command_has_a_page_and_a_row_in_the_readme():
    for command in COMMANDS:
        assert (ROOT / "docs" / f"{command}.md").is_file()
        assert f"`thumbnet {command} " in README


def test_the_tables_of_the_readme_are_made_from_the_results():
    check = [sys.executable, str(ROOT / "scripts" / "update_readme.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("program", ["publish_run.py", "publish_study.py", "classic_throughput.py", "gpu.py"])
def test_the_programs_behind_the_results_start(program):
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / program), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_published_study_tells_what_its_networks_had_of_the_test_images(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from publish_study import with_test

    row = {"group": "a", "gap": "1.0", "reported, test": "80.04%"}
    member = {"test_top5": 0.8, "test_loss": 2.0, "test_images": 10_000, "l2_penalty": 0.25}
    found = {"metric": "top5", "groups": [{"name": "a", "members": [member]}, {"name": "b", "members": [{}]}]}
    told = with_test(row, found)
    assert list(told) == ["group", "gap", "test top-5 accuracy", "test loss with penalty", "reported, test"]
    assert told["test top-5 accuracy"] == "80.00% (79.20% to 80.77%)" and told["test loss with penalty"] == "2.2500"
    assert with_test({"group": "b", "reported, test": "-"}, found) == {"group": "b", "reported, test": "-"}
    found["groups"][0]["members"] = [member, member | {"test_top5": 0.82}]
    assert with_test(row, found)["test top-5 accuracy"] == "81.00%"


def test_every_result_says_how_it_was_made():
    results = recorded()
    assert results
    for result in results:
        assert result["command"] and result["processor"] and result.get("versions", result)["torch"]
        words = result["command"].split() if isinstance(result["command"], str) else result["command"]
        assert not [word for word in words if Path(word).is_absolute()]  # nobody else has that folder
        if result["kind"] == "accuracy":
            assert result["n"] == len(result["seeds"])
            assert result["test_openings"] >= 1
            low, high = result["test_interval95"]
            assert low <= result["test_accuracy"] <= high
            assert in_words(result)


def test_the_python_of_the_readme_runs(tmp_path):
    code = README.split("```python\n")[1].split("```")[0].replace("epochs=4", "epochs=1")
    environment = os.environ | ONE_THREAD
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "runs" / "quick" / "summary.json").read_text())["epochs"] == 1


@pytest.mark.parametrize("page", ["python", "data"])
def test_the_python_of_a_page_runs(page, tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), re.DOTALL))
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_on_the_page_for_python():
    import thumbnet

    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    assert [name for name in thumbnet.__all__ if not re.search(rf"\b{name}\b", page)] == []


def test_the_embedded_set_names_its_owner_and_licence():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Zalando SE" in notice and "MIT License" in notice
