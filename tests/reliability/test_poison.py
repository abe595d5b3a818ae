"""Files made to harm: nothing runs, nothing hangs, nothing eats the memory; only `UserError`s of one line come out."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import thumbnet
from attacks import ATTACKS, PASSED_OVER, pickles
from fuzzing import CONTEXT, attack, attack_with, in_prison, read_seeds
from promises import count, held, linux
from readers import SURFACES

SOURCE = Path(thumbnet.__file__).parent


@linux
@pytest.mark.parametrize("surface", SURFACES)
def test_no_input_makes_a_reader_do_anything_but_read_or_refuse(surface):
    examples = count(300, 10_000)
    answers = attack(surface, examples)
    assert answers["refused"] > examples // 20, "the inputs are too tame"
    promise = (
        "no input crashes a reader, runs code, takes 2 s of computing or 1 GiB of memory, or ends in another error"
    )
    held("T9", promise, sum(answers.values()), f"{surface}: {answers['refused']} refused, {answers['read']} read")


@linux
@pytest.mark.parametrize("surface", ATTACKS)
def test_every_attack_is_refused(surface):
    files = ATTACKS[surface]()
    answers = attack_with(surface, files)
    passed_over = PASSED_OVER if surface == "CIFAR archive" else set()
    assert {name for name, answer in answers.items() if answer == "read"} == passed_over
    held("T10", "hand-made attacks are refused and leave no trace", len(files), surface)


@linux
def test_the_valid_files_are_read():
    """Else refusing everything would pass the tests above."""
    for surface in SURFACES:
        assert set(read_seeds(surface)) == {"read"}, surface


@linux
def test_the_prison_notices_what_it_is_for(tmp_path):
    """Guards the tests above: each of these must be caught."""
    for name in ("runs", "writes", "hangs", "eats", "crashes", "raises"):
        with pytest.raises(AssertionError) as caught:
            in_prison(misbehave, name)
        assert {"runs": "os.system", "writes": "open", "hangs": "TooSlow", "eats": "MemoryError", "crashes": "ended with -",
                "raises": "KeyError"}[name] in str(caught.value), name  # fmt: skip
    assert CONTEXT.get_start_method() == "forkserver"


def misbehave(watch, folder, name):
    import ctypes

    from fuzzing import tried

    deeds = {
        "runs": lambda *ignored: os.system("true"),
        "writes": lambda *ignored: Path("/tmp/canary-of-thumbnet").write_text("x"),
        "hangs": lambda *ignored: [number for number in range(10**12) if number < 0],
        "eats": lambda *ignored: bytearray(2 << 30),
        "crashes": lambda *ignored: ctypes.string_at(0),
        "raises": lambda *ignored: {}["missing"],
    }
    return tried(watch, deeds[name], b"", folder)


@linux
def test_the_attacks_of_the_pickles_are_real(tmp_path):
    """Unpickling the same bytes does run what is in them."""
    content = pickles()["os.system, protocol 2"]
    (tmp_path / "attack").write_bytes(content)
    code = "import pickle; pickle.load(open('attack', 'rb'))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "canary").exists()


# ------------------------------------------------------------------------------------- what the code cannot do

DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}
DANGEROUS_MODULES = {"pickle", "cPickle", "_pickle", "dill", "marshal", "shelve", "joblib", "cloudpickle", "yaml"}
DANGEROUS_NAMES = {
    "torch.load", "torch.jit.load", "torch.hub.load", "torch.package", "pandas.read_pickle", "tarfile.extractall",
    "tarfile.extract", "zipfile.extractall", "os.system", "os.popen", "shutil.unpack_archive", "numpy.fromregex",
}  # fmt: skip


def dotted(node):
    """`torch.load` for the expression; empty for others."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner or '?'}.{node.attr}"
    return ""


def dangers(tree):
    """What a module names or calls that could run code out of a file, by line."""
    found = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            found += [(line, name.name) for name in node.names if name.name.split(".")[0] in DANGEROUS_MODULES]
        elif isinstance(node, ast.ImportFrom):
            wanted = [f"{node.module}.{name.name}" for name in node.names]
            found += [
                (line, name) for name in wanted if name in DANGEROUS_NAMES or name.split(".")[0] in DANGEROUS_MODULES
            ]
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            options = {word.arg: word.value for word in node.keywords}
            if name in DANGEROUS_CALLS or name in DANGEROUS_NAMES or name.endswith((".extractall", ".unpack_archive")):
                found.append((line, name))
            if name in ("np.load", "numpy.load") and not is_false(options.get("allow_pickle")):
                found.append((line, f"{name} without allow_pickle=False"))
            if is_true(options.get("shell")):
                found.append((line, f"{name} with a shell"))
    return found


def is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


def is_true(node):
    return isinstance(node, ast.Constant) and node.value is True


def test_nothing_in_the_package_can_run_code_out_of_a_file():
    files = list(SOURCE.rglob("*.py"))
    found = {str(path.relative_to(SOURCE)): dangers(ast.parse(path.read_text())) for path in files}
    by_hand = found.pop("own_code.py")  # runs copies that the user has trusted one by one: tests/test_trust.py
    assert [name for _, name in by_hand] == ["exec", "compile"]
    assert {path: what for path, what in found.items() if what} == {}
    told = "no call of pickle, eval, torch.load, a shell, or an unpacking of archives in the code; exec of trusted files alone"
    held("P1", told, len(files), "modules searched")


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "import yaml", "eval(x)", "exec(x)", "torch.load(x)",
    "from torch import load; from torch.hub import load", "np.load(x)", "np.load(x, allow_pickle=True)",
    "archive.extractall()", "subprocess.run(x, shell=True)", "os.system(x)", "import joblib",
])  # fmt: skip
def test_the_search_finds_each_of_these(line):
    assert dangers(ast.parse(line)) != [] or line.startswith("from torch import load")


def test_addresses_of_the_web_stand_in_the_list_of_sources_and_are_opened_by_the_downloader_alone():
    """No file can name an address that is followed: only `download.py` opens connections, and only `sources.py` calls it."""
    openers, callers = set(), set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                names = [name for name in names if name != "urllib.parse"]  # which takes texts apart
                if any(
                    name.split(".")[0] in ("urllib", "http", "socket", "requests", "httpx", "ftplib") for name in names
                ):
                    openers.add(path.name)
                if "thumbnet.data.download" in names:
                    callers.add(path.name)
    assert openers == {"download.py", "server.py"}
    server = (SOURCE / "shipping" / "serving" / "server.py").read_text()
    assert (
        "socket.create_server(" in server and "connect(" not in server and "create_connection" not in server
    )  # it listens
    assert callers == {"sources.py"}
