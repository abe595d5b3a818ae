"""Data and helpers that several test files share. Small, real, seeded."""

import atexit
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest
import torch
from hypothesis import settings
from PIL import Image
from safetensors.torch import load_file

from processes import begin, enter, exit_code
from tables import paint
from thumbnet import own_code
from thumbnet.data.datasets import Dataset, assemble
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.data.pack import Pack
from thumbnet.kernels.library import NUMBERS, library
from thumbnet.machine import Machine
from thumbnet.processes import look_for_garbage_as_usual, look_for_garbage_seldom
from thumbnet.progress import Reporter
from thumbnet.recipes import Recipe, recipe
from thumbnet.runs.run import Run

look_for_garbage_seldom()
look_for_garbage_as_usual()  # what has been imported by now is left out


def make_cache() -> None:
    """Tests never touch the user's cache. The C is compiled by the first process; those that it begins copy it."""
    begun_by, own = os.environ.get("THUMBNET_CACHE", ""), Path(mkdtemp(prefix="thumbnet-cache-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    os.environ["THUMBNET_CACHE"] = str(own)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for number in NUMBERS:
            library(number)
    elif Path(begun_by, "kernels").is_dir():
        shutil.copytree(Path(begun_by, "kernels"), own / "kernels")


make_cache()  # before a module of tests asks what was compiled
settings.register_profile("no deadline", deadline=None)  # time is measured in benchmarks, not in tests
settings.load_profile("no deadline")

if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):  # as shells start what runs in the background; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

CPU = Machine(device="cpu", threads=1, precision="fp32")
TIMES = ("training_seconds", "images_per_second")  # of a row of metrics, all else of which repeats
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # for processes: beside other work two threads wait for each other at every step


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is alone with one of them at the end.

    Tests that share what their module prepares, a trained run for example, go to one process, which prepares it once.
    """
    items.sort(key=lambda item: item.path.name != "test_learning.py")
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
        if any(made[-1].scope == "module" for made in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def two_threads():
    """Some tests ask for one thread; the next one starts with all again."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    """Nothing that another test trusted."""
    monkeypatch.setattr(own_code, "store", lambda: tmp_path / "store")


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """240 training and 100 test images of fashion-mini: ten classes, real pictures."""
    pack = read_fashion_mini()
    arrays = {name: array[: 240 if name.startswith("train") else 100] for name, array in pack.arrays.items()}
    return assemble("tiny", Pack(arrays, pack.description), {"location": "memory"})


@pytest.fixture
def quick() -> Recipe:
    """Seconds of training with everything that draws at random switched on."""
    return recipe(
        "general", widths=(8, 16, 16), epochs=3, batch_size=32, micro_batch=16, learning_rate=0.05, dropout=(0.2,),
        zoom=0.1, shift=0.1, crop=1, jitter=0.1, cutout=6, cutmix=0.4, mixup=0.3, mix_until=0.9, stem_until=0.5,
    )  # fmt: skip


@pytest.fixture(scope="session")
def unbroken(tiny, tmp_path_factory):
    """Runs never interrupted, one for each way to train."""
    from thumbnet.training.loop import train

    made = {}

    def run(quick):
        if quick not in made:
            made[quick] = train(quick, tiny, tmp_path_factory.mktemp("unbroken") / "run", machine=CPU)
        return made[quick]

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, and one is in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cifar_folder() -> Path:
    """The folder with the real CIFAR sets; tests that need it are skipped without it."""
    folder = os.environ.get("THUMBNET_DATA")
    if not folder or not (Path(folder) / "cifar-10-batches-py").is_dir():
        pytest.skip("real CIFAR is needed: set THUMBNET_DATA to the folder that holds cifar-10-batches-py")
    return Path(folder)


def thumbnet(*words: object, cwd: Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, which starts with everything imported: see processes.py."""
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = begin(words, output, partial(enter, cwd, os.environ | environment), errors=errors)
        code = exit_code(process, timeout)
        return subprocess.CompletedProcess(words, code, output.read_text(), errors.read_text())


def pictures(folder: Path, classes=("a", "b"), count=12):
    """Folders of small pictures, each of one colour, in FOLDER/<class>/."""
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32), (index * 90, number * 10, 50)).save(folder / name / f"{number}.png")


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def identity(run: Run):
    """Everything a run produced except the time it took."""
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in run.metrics]
    return load_file(run.path / "model.safetensors"), rows


def assert_identical(one: Run, other: Run):
    (weights, rows), (other_weights, other_rows) = identity(one), identity(other)
    assert rows == other_rows
    assert weights.keys() == other_weights.keys()
    differing = [name for name in weights if not torch.equal(weights[name], other_weights[name])]
    assert differing == []


@pytest.fixture
def pets(tmp_path):
    """A folder with a.png, b.png and c.png, and a function that writes a table beside them."""
    paint(tmp_path, "a.png", "b.png", "c.png")

    def write(text, name="labels.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write
