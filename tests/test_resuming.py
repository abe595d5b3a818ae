"""Runs that were stopped, cut off or damaged, and go on: to the same bits, or not at all."""

import json
import math
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from conftest import CPU, Heard, assert_identical
from thumbnet import signals
from thumbnet.backend import has_fast_bf16
from thumbnet.data.datasets import Dataset
from thumbnet.errors import Interrupted, UserError
from thumbnet.machine import Machine
from thumbnet.recipes import recipe, vary
from thumbnet.runs import checkpoints
from thumbnet.runs.paths import newest_unfinished
from thumbnet.runs.run import Run
from thumbnet.training import loop
from thumbnet.training.loop import train
from thumbnet.training.workshop import Workshop

OFTEN = replace(CPU, checkpoint_seconds=0)  # a checkpoint after every step


def seconds_of_checkpoint(path):
    """The training clock in the newest checkpoint of a run."""
    state = checkpoints.manifests(path / "checkpoint")[0].with_suffix(".safetensors")
    with safe_open(state, framework="numpy") as stored:
        return json.loads(stored.metadata()["position"])["seconds"]


def stop_at(monkeypatch, call):
    """Let the `call`-th question whether to stop be answered with yes."""
    asked = []

    def check(self):
        asked.append(1)
        if len(asked) == call:
            raise signals.StopRequested("SIGTERM")

    monkeypatch.setattr(signals.StopSignals, "check", check)


class Moved:
    """A deadline that finds after four steps that there is time for other epochs than planned."""

    def __init__(self, epochs):
        self.epochs = epochs

    def replanned(self, recipe, epoch, step, steps):
        return vary(recipe, epochs=self.epochs) if epoch * steps + step >= 4 else recipe


WAYS = [
    {},
    {"optimizer": "sgd", "l2": 5e-4, "learning_rate": 0.02},
    {"optimizer": "adam", "learning_rate": 1e-3},
    {"optimizer": "adamw", "weight_decay": 0.01, "learning_rate": 1e-3},
    {"hardest": 0.5, "hardest_after": 0.1},
    {"balance": 1.0},
]


# 216 training images of batch 32: 6 steps and 1 check before the validation batch, so an epoch asks 7 times.
@pytest.mark.parametrize("changes", WAYS, ids=["muon", "sgd", "adam", "adamw", "the hardest", "balanced"])
@pytest.mark.parametrize("stops", [[1], [4], [7], [8, 3], [20]], ids=str)
def test_a_run_stopped_and_resumed_ends_with_the_same_bits_as_an_unbroken_one(
    tiny, quick, unbroken, tmp_path, monkeypatch, stops, changes
):
    quick = vary(quick, **changes)
    for call in stops:
        with monkeypatch.context() as patched:
            stop_at(patched, call)
            with pytest.raises(Interrupted, match=r"continue with: thumbnet train tiny --out .*run --resume"):
                train(quick, tiny, tmp_path / "run", machine=CPU)
    assert_identical(train(quick, tiny, tmp_path / "run", machine=CPU), unbroken(quick))


@pytest.mark.parametrize("model", ["speednet_slim", "preact_resnet50_classic"])
def test_in_bf16_with_the_parts_in_c_a_resumed_run_ends_with_the_same_bits_too(tiny, tmp_path, monkeypatch, model):
    if model != "speednet_slim" and not has_fast_bf16(torch.device("cpu")):
        pytest.skip("bf16 is emulated here, a minute for this network")
    bf16 = Machine(device="cpu", precision="bf16", threads=1)
    chosen = recipe("general", widths=(8, 16, 16), epochs=2, batch_size=32)
    if model != "speednet_slim":
        chosen = recipe("cifar10-classic", epochs=1, batch_size=64)
    whole = train(chosen, tiny, tmp_path / "whole", machine=bf16)
    with monkeypatch.context() as patched:
        stop_at(patched, 3)
        with pytest.raises(Interrupted):
            train(chosen, tiny, tmp_path / "cut", machine=bf16)
    assert_identical(train(chosen, tiny, tmp_path / "cut", machine=bf16), whole)


def test_a_run_resumed_with_other_kernels_or_threads_says_so_and_notes_it(tiny, quick, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(patched, 3)
        with pytest.raises(Interrupted):
            train(quick, tiny, tmp_path / "run", machine=CPU)
    path = tmp_path / "run" / "environment.json"
    here = json.loads(path.read_text())["kernels"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernels": "others"}))

    heard = Heard()
    train(quick, tiny, tmp_path / "run", machine=replace(CPU, threads=2), reporter=heard)
    said = f"note: continued with threads 2 (before: 1), kernels {here} (before: others): the last bits will differ"
    assert any(line.startswith(said) for line in heard.lines)
    about = json.loads(path.read_text())
    assert about["threads"] == 1 and about["continued_with"] == [{"threads": 2, "kernels": here}]
    run = Run.open(tmp_path / "run")
    assert run.note_process(about | about["continued_with"][0]) == ""  # the same again is nothing new
    assert run.note_process(about | {"kernels": here}) == "threads 1 (before: 2)"
    assert run.environment["continued_with"][1] == {"threads": 1}


def test_a_run_cut_between_checkpoints_trains_the_lost_epochs_again(tiny, quick, unbroken, tmp_path, monkeypatch):
    """Killed without warning in the last epoch, with the last checkpoint in the first: rows written since are dropped."""

    def save_only_in_the_first_epoch(run, model, optimizer, position, keep=loop.save):
        if position.epoch == 0:
            keep(run, model, optimizer, position)

    class Killed(BaseException):
        pass

    def epoch(self, row, epochs):
        if row["epoch"] == 2:
            raise Killed

    monkeypatch.setattr(loop, "save", save_only_in_the_first_epoch)
    monkeypatch.setattr(loop.Reporter, "epoch", epoch)
    with pytest.raises(Killed):
        train(quick, tiny, tmp_path / "run", machine=OFTEN)
    monkeypatch.undo()
    assert [row["epoch"] for row in Run.open(tmp_path / "run").metrics] == [1, 2]
    assert_identical(train(quick, tiny, tmp_path / "run", machine=CPU), unbroken(quick))


def test_a_crash_between_the_state_and_its_manifest_leaves_the_checkpoint_before(
    tiny, quick, unbroken, tmp_path, monkeypatch
):
    written = []

    def write_json(path, value, keep=checkpoints.write_json):
        written.append(path.name)
        if len(written) == 5:
            raise KeyboardInterrupt
        keep(path, value)

    monkeypatch.setattr(checkpoints, "write_json", write_json)
    with pytest.raises(KeyboardInterrupt):
        train(quick, tiny, tmp_path / "run", machine=OFTEN)
    monkeypatch.undo()
    left = [len(list((tmp_path / "run" / "checkpoint").glob(f"*.{end}"))) for end in ("json", "safetensors")]
    assert left == [2, 3]
    assert_identical(train(quick, tiny, tmp_path / "run", machine=CPU), unbroken(quick))


def test_a_finished_run_is_returned_rather_than_trained_again(tiny, quick, unbroken):
    run = unbroken(quick)
    before = (run.path / "summary.json").stat().st_mtime_ns
    assert train(quick, tiny, run.path, machine=CPU).summary == run.summary
    assert (run.path / "summary.json").stat().st_mtime_ns == before


def test_resuming_with_another_recipe_is_refused_with_the_difference(tiny, quick, unbroken):
    with pytest.raises(
        UserError, match=r"the recipe differs from that of .*: epochs 9 \(there 3\), seed 5 \(there 0\)"
    ):
        train(vary(quick, epochs=9, seed=5), tiny, unbroken(quick).path, machine=CPU)


def test_a_damaged_checkpoint_is_refused_before_it_is_used(tiny, quick, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        with pytest.raises(Interrupted):
            train(quick, tiny, tmp_path / "run", machine=CPU)
    state = next((tmp_path / "run" / "checkpoint").glob("*.safetensors"))
    bytes_ = bytearray(state.read_bytes())
    bytes_[-100] ^= 1
    state.write_bytes(bytes_)
    with pytest.raises(UserError, match="has another SHA-256 than its manifest says"):
        train(quick, tiny, tmp_path / "run", machine=CPU)


def test_two_processes_cannot_train_in_one_folder(tiny, quick, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        with pytest.raises(Interrupted):
            train(quick, tiny, tmp_path / "run", machine=CPU)
    run = Run.open(tmp_path / "run")
    with run.locked(), pytest.raises(UserError, match=rf"is training in .* \(process {os.getpid()} on "):
        train(quick, tiny, tmp_path / "run", machine=CPU)


def test_a_state_is_restored_in_the_memory_that_the_optimiser_has(tiny, quick, tmp_path, monkeypatch):
    chosen = vary(quick, optimizer="sgd", learning_rate=0.02)
    workshop = Workshop()
    train(chosen, tiny, tmp_path / "before", machine=CPU, workshop=workshop)
    places = {state["momentum_buffer"].data_ptr() for state in workshop.optimizer.state.values() if state}
    with monkeypatch.context() as patched:
        stop_at(patched, 9)
        with pytest.raises(Interrupted):
            train(chosen, tiny, tmp_path / "run", machine=CPU)
    resumed = train(chosen, tiny, tmp_path / "run", machine=CPU, workshop=workshop)
    assert {state["momentum_buffer"].data_ptr() for state in workshop.optimizer.state.values() if state} == places
    assert_identical(resumed, train(chosen, tiny, tmp_path / "whole", machine=CPU))


def test_a_resumed_run_keeps_the_precision_and_threads_it_began_with(tiny, quick, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        with pytest.raises(Interrupted):
            train(quick, tiny, tmp_path / "run", machine=CPU)
    run = train(quick, tiny, tmp_path / "run")
    assert (run.summary["precision"], torch.get_num_threads()) == ("fp32", 1)


def test_a_resumed_run_counts_the_seconds_of_all_its_parts(tiny, quick, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(patched, 12)
        with pytest.raises(Interrupted):
            train(quick, tiny, tmp_path / "run", machine=CPU)
    before = seconds_of_checkpoint(tmp_path / "run")
    summary = train(quick, tiny, tmp_path / "run", machine=CPU).summary
    assert summary["wall_seconds"] > summary["train_seconds"] > before > 0


def test_a_run_of_a_fraction_of_epochs_ends_in_the_middle_of_the_last_and_resumes_there(
    tiny, quick, tmp_path, monkeypatch
):
    quick = vary(quick, epochs=1.5)  # 6 + 3 steps
    whole = train(quick, tiny, tmp_path / "whole", machine=CPU)
    stop_at(monkeypatch, 9)  # within the second epoch
    with pytest.raises(Interrupted):
        train(quick, tiny, tmp_path / "run", machine=CPU)
    assert_identical(train(quick, tiny, tmp_path / "run", machine=CPU), whole)
    assert [row["epoch"] for row in whole.metrics] == [1, 2]
    assert whole.metrics[-1]["learning_rate"] == pytest.approx(quick.learning_rate / 9)


@pytest.mark.parametrize("epochs", [1.0, 1.5, 4.5])
def test_a_run_whose_epochs_are_moved_on_the_way_makes_them_writes_them_down_and_resumes_with_them(
    tiny, quick, tmp_path, monkeypatch, epochs
):
    quick = vary(quick, hardest=0.5, hardest_after=0.1)
    whole = train(quick, tiny, tmp_path / "whole", machine=CPU, deadline=Moved(epochs))
    assert [row["epoch"] for row in whole.metrics] == list(range(1, math.ceil(epochs) + 1))
    assert whole.recipe.epochs == Run.open(whole.path).recipe.epochs == whole.summary["epochs"] == epochs
    assert whole.moved_epochs and whole.summary["epochs_planned"] == quick.epochs
    assert whole.metrics[-1]["epochs"] == epochs
    assert f"epochs = {epochs:g}" in (whole.path / "changes.toml").read_text()
    stop_at(monkeypatch, 6)  # before the sixth step, the second after the epochs were moved
    with pytest.raises(Interrupted):
        train(quick, tiny, tmp_path / "run", machine=CPU, deadline=Moved(epochs))
    heard = Heard()
    resumed = train(
        Run.open(tmp_path / "run").recipe, tiny, tmp_path / "run", machine=CPU, reporter=heard
    )  # no deadline
    assert f"note: going on with the {epochs:.2f} epochs planned last, not the 3.00 planned first" in heard.lines
    assert_identical(resumed, whole)
    assert Run.open(resumed.path).recipe == whole.recipe


def test_the_newest_unfinished_run_is_found_in_its_own_place_and_directly_below_runs(tiny, quick, tmp_path):
    with pytest.raises(UserError, match=r"holds no unfinished run of tiny; name its folder with --out"):
        newest_unfinished("tiny", None, tmp_path)
    places = {}
    for age, (place, made) in enumerate([("tiny/general/a", quick), ("mine", vary(quick, epochs=9)), ("ended", quick)]):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        places[place] = Run.create(tmp_path / place, made, tiny, {}).path
        os.utime(places[place] / "recipe.toml", (age, age))
    (places["ended"] / "summary.json").write_text("{}")
    other = Run.create(tmp_path / "other", quick, replace(tiny, name="another"), {}).path
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "recipe.toml").write_text("recipe = ")
    assert newest_unfinished("tiny", None, tmp_path) == places["mine"]
    assert newest_unfinished("tiny", "general", tmp_path) == places["mine"]
    assert newest_unfinished("another", None, tmp_path) == other
    shutil.rmtree(places["mine"])
    assert newest_unfinished("tiny", None, tmp_path) == places["tiny/general/a"]


def test_a_run_from_before_equal_images_stayed_together_keeps_its_cut(tiny, quick, tmp_path, monkeypatch):
    images = tiny.development.images.clone()
    images[1::2] = images[::2]
    twice = replace(tiny.development, images=images)
    data = replace(tiny, development=twice, train=twice)
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "together", None)  # as it was: equal images went where chance put them
        before = train(quick, data, tmp_path / "before", machine=CPU)
        stop_at(patched, 8)
        with pytest.raises(Interrupted):
            train(quick, data, tmp_path / "run", machine=CPU)
    for name in ("before", "run"):
        record = json.loads((tmp_path / name / "data.json").read_text())
        assert record.pop("copies_together") is True
        (tmp_path / name / "data.json").write_text(json.dumps(record))
    resumed = train(quick, data, tmp_path / "run", machine=CPU)
    assert_identical(resumed, before)
    for run, parted in ((resumed, True), (train(quick, data, tmp_path / "now", machine=CPU), False)):
        cut = Run.open(run.path).check_data(data)
        seen = {image.numpy().tobytes() for image in images[cut.train.rows]}
        assert any(image.numpy().tobytes() in seen for image in images[cut.validation.rows]) == parted
