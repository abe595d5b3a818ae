"""What SECURITY.md says of the installation and of what is written down."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from conftest import CPU
from thumbnet import backend
from thumbnet.backend import environment, prepare

ROOT = Path(__file__).parents[1]

# The first version without the hole, by package, from the packages' advisories (looked up in November 2026).
HOLES = {
    "torch": [
        ("2.6", "CVE-2025-32434, code in torch.load"),
        ("2.10", "CVE-2026-24747, memory corrupted by torch.load"),
    ],
    "pillow": [
        ("12.2", "CVE-2026-42309, overflow in coordinates"),
        ("13.0", "CVE-2026-112403, overflow in the JPEG decoder"),
    ],
    "jinja2": [("3.1.5", "CVE-2024-56326, escape from the sandbox")],
    "onnx": [("1.21", "CVE-2026-27489 and CVE-2026-34447, files beside the model read through links")],
    "filelock": [("3.20.3", "CVE-2026-22701 and CVE-2025-68146, a symbolic link in place of the lock")],
}


def floors():
    """The lowest version of each dependency that can be installed."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    found = {}
    extras = project["optional-dependencies"]
    extra = [line for name in extras if name != "dev" for line in extras[name]]  # that one is not installed by users
    for line in [*project["dependencies"], *extra]:
        requirement = Requirement(line)
        lows = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==", "~=")]
        found[requirement.name.lower()] = max(lows, default=None)
    return found


def test_no_dependency_may_be_installed_in_a_version_with_a_known_hole():
    lowest = floors()
    for name, holes in HOLES.items():
        for fixed, hole in holes:
            assert lowest[name] is not None and lowest[name] >= Version(fixed), f"{name} {lowest[name]}: {hole}"


def test_every_dependency_has_a_lowest_version():
    assert [name for name, low in floors().items() if low is None] == []


def test_no_environment_variable_is_written_down(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN_OF_MINE", "hunter2-hunter2")
    monkeypatch.setattr(backend.sys, "argv", ["thumbnet", "train"])
    told = environment(prepare(CPU))
    assert "hunter2" not in str(told)
    assert set(told) <= {
        "command", "thumbnet", "commit", "python", "torch", "numpy", "platform", "processor", "cores", "device", "gpu",
        "threads", "precision", "kernels",
    }  # fmt: skip


def test_nothing_but_the_server_listens_on_the_network():
    listening = re.compile(r"\.bind\(|\.listen\(|create_server|HTTPServer|serve_forever|uvicorn")
    found = {path.parent.name for path in (ROOT / "src").rglob("*.py") if listening.search(path.read_text())}
    assert found == {"serving"}
