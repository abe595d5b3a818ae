"""A save that is killed, fails or meets a power cut; a checkpoint that is damaged. Old or new, never neither, never a mix."""

import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from power_loss import Disk, recorded
from promises import FULL, count, held, linux
from thumbnet.errors import UserError
from thumbnet.files import append_line, write_json
from thumbnet.reading import sha256_of
from thumbnet.runs.checkpoints import Unfit, check_arrays, load_checkpoint, manifests, save_checkpoint

OWNER = "0123456789abcdef"


def state(number):
    """Some tensors that tell which save they are of."""
    generator = np.random.default_rng(number)
    return {
        "model.weight": generator.normal(size=(40, 30)).astype(np.float32),
        "optimizer.step.weight": np.array(number, np.float32),
        "totals": np.full(4, float(number)),
    }


def save(folder, number, **changes):
    arguments = {
        "arrays": state(number),
        "position": {"epoch": number, "step": 0, "epochs": 3.0, "seconds": 1.5, "training_seconds": 1.0},
        "owner": OWNER,
    }
    save_checkpoint(folder, **(arguments | changes))


def check(arrays):
    check_arrays(arrays, {name: (array.shape, array.dtype.name) for name, array in state(0).items()})


def number_in(folder):
    """Which save the loaded state is of, every tensor compared; None where nothing is there."""
    checkpoint = load_checkpoint(folder, OWNER, check)
    if checkpoint is None:
        return None
    number = checkpoint.position["epoch"]
    assert all(np.array_equal(array, checkpoint.arrays[name]) for name, array in state(number).items())
    return number


# ------------------------------------------------------------------------------------- every system call of a save

SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_checkpoints import save
from pathlib import Path
from thumbnet.errors import UserError
try:
    save(Path(sys.argv[2]), 3)
except UserError as error:
    sys.exit(str(error))
"""
CALLS = ("openat", "write", "pwrite64", "ftruncate", "fsync", "rename", "unlink", "mkdir", "close", "read", "lseek")


NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}  # else the first process makes other calls than the second


def traced_save(folder, log, inject=None):
    """Save number 3 in a process under strace; `inject` is what strace does to one of its calls."""
    options = [f"--inject={inject}"] if inject else []
    command = ["strace", "-f", "-y", "-o", log, f"--trace={','.join(CALLS)}", *options]
    return subprocess.run(
        [*command, sys.executable, "-c", SAVE, Path(__file__).parent, folder],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", **NO_BYTECODE},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def calls_on(folder, log):
    """(name, its number among the calls of that name) of the calls of the main process that touch the folder."""
    lines = log.read_text(errors="replace").splitlines()
    main = lines[0].split()[0]
    numbers, found = dict.fromkeys(CALLS, 0), []
    for line in lines:
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match and match[1] == main and match[2] in numbers:
            numbers[match[2]] += 1
            if str(folder) in line:
                found.append((match[2], numbers[match[2]]))
    return found


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_save_killed_or_failing_at_any_system_call_leaves_the_state_before_or_the_new_one(tmp_path):
    start = tmp_path / "start"
    for number in (1, 2):
        save(start, number)

    def fresh(name):
        shutil.copytree(start, tmp_path / name, copy_function=shutil.copy2)
        return tmp_path / name

    folder = fresh("all")
    assert traced_save(folder, tmp_path / "log").returncode == 0
    calls = calls_on(folder, tmp_path / "log")
    assert {"openat", "write", "fsync", "rename", "unlink", "close"} <= {name for name, _ in calls}
    faults = ("signal=KILL", "error=ENOSPC", "error=EIO")
    cases = [(call, fault) for call in calls for fault in faults]
    outcomes = {"before": 0, "new": 0}
    chosen = cases if FULL else random.Random(5).sample(cases, 15)
    for number, ((name, nth), fault) in enumerate(chosen):
        folder = fresh(f"{number}-{name}")
        done = traced_save(folder, tmp_path / "log", f"{name}:{fault}:when={nth}")
        told = f"{name} {nth} {fault}: exit {done.returncode}, {done.stderr}"
        hit = (tmp_path / "log").read_text(errors="replace")
        assert "(INJECTED)" in hit or "killed by SIGKILL" in hit, told
        assert "Traceback" not in done.stderr, told
        loaded = number_in(folder)
        assert loaded in (2, 3), told
        if done.returncode == 0:
            assert loaded == 3, told
        elif not fault.startswith("signal"):
            assert re.fullmatch(r"cannot write \S+: .+; .+ and run again\n", done.stderr), told
        outcomes["new" if loaded == 3 else "before"] += 1
        save(folder, 4)  # whatever was left, the next save succeeds and tidies up
        assert number_in(folder) == 4
        assert len(list(folder.iterdir())) == 4, told
        shutil.rmtree(folder)
    assert min(outcomes.values()) > 0
    promise = (
        "a save killed (SIGKILL) or failing (ENOSPC, EIO) at any system call leaves the state before it or the new one"
    )
    held(
        "T2", promise, len(chosen), f"{len(calls)} calls; {outcomes['before']} times the old, {outcomes['new']} the new"
    )


# ------------------------------------------------------------------------------------- power cuts


@linux
def test_after_a_power_cut_the_state_before_or_the_new_one_is_there(tmp_path):
    generator, states, draws = random.Random(7), set(), 0
    folder = tmp_path / "run" / "checkpoint"
    folder.parent.mkdir()
    disk = Disk(folder.parent)
    for number in range(1, count(8, 60)):
        with recorded(disk) as operations:
            save(folder, number)
        assert {"fsync", "rename", "fsync_folder"} <= {operation[0] for operation in operations}
        for cut in range(len(operations) + 1):
            allowed = {number} if cut == len(operations) else {number, (number - 1) or None}
            for _ in range(8):
                crashed = tmp_path / "crashed"
                disk.after_a_cut(operations[:cut], generator, crashed)
                files = sorted(path for path in crashed.rglob("*") if path.is_file())
                states.add((number, *((str(path.relative_to(crashed)), path.read_bytes()) for path in files)))
                assert number_in(crashed / "checkpoint") in allowed, (number, cut, operations[:cut])
                shutil.rmtree(crashed)
                draws += 1
        disk.settle(operations)
    assert draws >= 500 and len(states) >= count(60, 500)
    promise = "after a power cut at any moment of a save (writes not synced lost, cut or reordered) the old or new state loads"
    held("T3", promise, draws, f"{draws} draws, {len(states)} different disks")


def test_a_save_of_the_step_that_is_saved_already_changes_nothing_and_costs_nothing_when_killed(tmp_path, monkeypatch):
    """A run stopped, resumed, and stopped again before its next step."""
    save(tmp_path, 1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    save(tmp_path, 1, position={"epoch": 1, "step": 0, "epochs": 3.0, "seconds": 99.0, "training_seconds": 9.0})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    flip(tmp_path / "1-0.safetensors", 9000)  # a damaged one of that step is replaced
    save(tmp_path, 1)
    assert number_in(tmp_path) == 1


def test_after_a_damaged_state_was_passed_over_the_next_saves_keep_two_good_ones(tmp_path):
    for number in (2, 4):
        save(tmp_path, number)
    flip(tmp_path / "4-0.safetensors", 9000)
    assert number_in(tmp_path) == 2
    save(tmp_path, 3)
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["2-0", "3-0"]
    flip(tmp_path / "3-0.safetensors", 9000)
    assert number_in(tmp_path) == 2


def test_a_save_deletes_nothing_that_is_not_its_own_and_goes_through_no_link(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "notes.txt").write_text("mine")
    for number in (1, 2, 3):
        save(tmp_path / "checkpoint", number)
    assert (tmp_path / "checkpoint" / "notes.txt").read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1-0.json").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link, and checkpoints are not written through one; remove it"):
        save(tmp_path / "link", 2)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["1-0.json"]


def test_no_file_is_written_through_a_link_that_somebody_left(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / f".x.json.tmp-{os.getpid()}").symlink_to(precious)
    write_json(tmp_path / "x.json", [1])
    assert not (tmp_path / "x.json").is_symlink()
    (tmp_path / "rows.jsonl").symlink_to(precious)
    with pytest.raises(UserError, match="cannot write"):
        append_line(tmp_path / "rows.jsonl", "{}")
    assert precious.read_text() == "mine"


def test_a_row_after_a_torn_one_takes_its_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_line(path, '{"epoch": 1}')
    with path.open("a") as file:
        file.write('{"epo')
    append_line(path, '{"epoch": 2}')
    assert path.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


def test_no_line_is_lost_where_processes_add_to_one_file_at_once(tmp_path):
    path, lines = tmp_path / "rows.jsonl", 150
    code = "import sys; from thumbnet.files import append_line; from pathlib import Path\n"
    code += "for i in range(int(sys.argv[2])): append_line(Path(sys.argv[1]), sys.argv[3] + str(i))"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(lines), name]) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert sorted(path.read_text().split()) == sorted(f"{name}{i}" for name in "abc" for i in range(lines))


def test_a_power_cut_may_tear_the_last_line_of_the_metrics_and_no_other(tmp_path):
    from thumbnet.reading import read_json_lines

    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        append_line(path, json.dumps({"epoch": epoch}))
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        rows = read_json_lines(path, {"epoch": int})
        assert rows == [{"epoch": epoch} for epoch in range(1, whole[:length].count(b"\n") + 1)][:3] or (
            length in (len(whole) - 1, 2 * len(whole) // 3 - 1, len(whole) // 3 - 1)  # all but the end of the line
        )
    path.write_bytes(b"{torn\n" + whole)
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged in line 1: "):
        read_json_lines(path, {"epoch": int})


# ------------------------------------------------------------------------------------- damage


def reseal(folder, number):
    """Let the manifest fit the state again, as somebody would who wants it believed."""
    path = folder / f"{number}-0.safetensors"
    write_json(path.with_suffix(".json"), {"bytes": path.stat().st_size, "sha256": sha256_of(path)})


def rewritten(folder, owner=OWNER, position=None, **arrays):
    """State 2 with some arrays replaced (None: left out), its manifest fitting."""
    kept = {name: array for name, array in (state(2) | arrays).items() if array is not None}
    position = position or {"epoch": 2, "step": 0, "epochs": 3.0, "seconds": 1.5, "training_seconds": 1.0}
    save_file(kept, folder / "2-0.safetensors", {"owner": owner, "position": json.dumps(position)})
    reseal(folder, 2)


def copied(folder, source, target):
    shutil.copy(folder / source, folder / target)


WRONG = {
    "the other state under its name": lambda folder: copied(folder, "1-0.safetensors", "2-0.safetensors"),
    "the other manifest under its name": lambda folder: copied(folder, "1-0.json", "2-0.json"),
    "the other pair under its name": lambda folder: [
        copied(folder, f"1-0.{end}", f"2-0.{end}") for end in ("json", "safetensors")
    ],
    "no state": lambda folder: (folder / "2-0.safetensors").unlink(),
    "a folder for a state": lambda folder: [(folder / "2-0.safetensors").unlink(), (folder / "2-0.safetensors").mkdir()],
    "a dangling link for a state": lambda folder: [
        (folder / "2-0.safetensors").unlink(), (folder / "2-0.safetensors").symlink_to("nowhere"),
    ],
    "another run's": lambda folder: rewritten(folder, owner="another"),
    "no owner": lambda folder: [save_file(state(2), folder / "2-0.safetensors"), reseal(folder, 2)],
    "no step": lambda folder: rewritten(folder, position={"epoch": 2}),
    "a position that is a list": lambda folder: rewritten(folder, position=[2, 0]),
    "another shape": lambda folder: rewritten(folder, **{"model.weight": np.zeros((30, 40), np.float32)}),
    "another type": lambda folder: rewritten(folder, **{"model.weight": np.zeros((40, 30), np.float64)}),
    "a tensor too few": lambda folder: rewritten(folder, **{"model.weight": None}),
    "a tensor too many": lambda folder: rewritten(folder, **{"model.more": np.zeros(3)}),
    "NaN": lambda folder: rewritten(folder, **{"model.weight": np.full((40, 30), np.nan, np.float32)}),
    "one infinity": lambda folder: rewritten(folder, **{"totals": np.array([0, 1, np.inf, 0])}),
    "an empty manifest": lambda folder: (folder / "2-0.json").write_text(""),
    "a manifest of another kind": lambda folder: (folder / "2-0.json").write_text("[1, 2]"),
    "a manifest without an end": lambda folder: (folder / "2-0.json").write_text("[" * 4000),
    "a manifest of a megabyte": lambda folder: (folder / "2-0.json").write_text(" " * 2**20 + "{}"),
    "a manifest that is no text": lambda folder: (folder / "2-0.json").write_bytes(b"\xff\xfe{}"),
}  # fmt: skip


def damaged(folder, generator):
    """(what, a function that damages state 2) for every truncation by a hundredth and many single bits."""
    for name, act in WRONG.items():
        yield name, lambda act=act: act(folder)
    files = [folder / "2-0.safetensors", folder / "2-0.json"]
    for path, percent in itertools.product(files, range(100)):
        yield (
            f"{path.name} cut to {percent} %",
            lambda path=path, percent=percent: os.truncate(path, path.stat().st_size * percent // 100),
        )
    for number in range(count(150, 1000)):
        path = files[number % 4 == 0]
        bit = generator.randrange(8 * path.stat().st_size)
        yield f"bit {bit} of {path.name}", lambda path=path, bit=bit: flip(path, bit)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_that_is_told(tmp_path):
    folder = tmp_path / "checkpoint"
    for number in (1, 2):
        save(folder, number)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    cases = 0
    for what, damage in damaged(folder, random.Random(3)):
        damage()
        checkpoint = load_checkpoint(folder, OWNER, check)
        assert checkpoint is not None and checkpoint.position["epoch"] == 1, what
        assert all(np.array_equal(array, checkpoint.arrays[name]) for name, array in state(1).items()), what
        [told] = checkpoint.passed_over
        assert str(folder / "2-0.json") in told and "\n" not in told, what
        cases += 1
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in whole.items():
            (folder / name).write_bytes(content)
    assert number_in(folder) == 2
    promise = "a damaged checkpoint is noticed before a weight of it is used; the one before is used, and that is told"
    held("T8", promise, cases, f"{len(WRONG)} hand-made, 200 truncations, {cases - 200 - len(WRONG)} flipped bits")


@pytest.mark.parametrize(("what", "told"), [
    ("another run's", "belongs to another run"),
    ("the other pair under its name", "was saved as 1-0 and renamed"),
    ("an empty manifest", "has a damaged manifest"),
    ("no step", r"cannot be read \(it lacks 'step'\)"),
    ("another shape", r"has model.weight as float32 \(30, 40\), expected float32 \(40, 30\)"),
    ("a tensor too few", "lacks model.weight"),
    ("a tensor too many", "has an unknown model.more"),
    ("NaN", "has numbers in model.weight that are not finite"),
])  # fmt: skip
def test_the_reason_for_passing_a_checkpoint_over_is_told(tmp_path, what, told):
    for number in (1, 2):
        save(tmp_path, number)
    WRONG[what](tmp_path)
    [reason] = load_checkpoint(tmp_path, OWNER, check).passed_over
    assert re.fullmatch(rf"the checkpoint \S+2-0.json {told}", reason)


def test_a_checkpoint_cut_short_is_told_by_its_bytes(tmp_path):
    for number in (1, 2):
        save(tmp_path, number)
    os.truncate(tmp_path / "2-0.safetensors", 100)
    [reason] = load_checkpoint(tmp_path, OWNER, check).passed_over
    assert re.search(r"2-0.json has 100 bytes, \d+ by its manifest$", reason)


def test_with_every_checkpoint_damaged_training_stops_and_says_why(tmp_path):
    for number in (1, 2):
        save(tmp_path, number)
        flip(tmp_path / f"{number}-0.safetensors", 9000)
    with pytest.raises(UserError, match=r"2-0.json has another SHA-256.*1-0.json has another SHA-256.*start a new run"):
        load_checkpoint(tmp_path, OWNER, check)


def test_two_states_are_kept_and_what_others_left_is_tidied_up(tmp_path):
    (tmp_path / ".9-0.safetensors.tmp-123").write_bytes(b"half")
    for number in (1, 2, 10):  # by number, not by letter
        save(tmp_path, number)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "10-0.json", "10-0.safetensors", "2-0.json", "2-0.safetensors",
    ]  # fmt: skip
    assert [path.stem for path in manifests(tmp_path)] == ["10-0", "2-0"]
    assert load_file(tmp_path / "10-0.safetensors").keys() == state(10).keys()


def test_files_of_a_checkpoint_can_be_read_by_the_group_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        save(tmp_path / "checkpoint", 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "checkpoint").iterdir()} == {0o640}


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path):
    assert load_checkpoint(tmp_path / "absent", OWNER, check) is None


def test_unfit_is_no_error_of_the_user(tmp_path):
    assert not issubclass(Unfit, UserError)
