"""Which images a step trains on: all of them in turn, or the hardest."""

import hashlib
import json

import pytest
import torch
from torch.nn import functional as F

from conftest import CPU
from thumbnet.augment import mirrored_in_epoch
from thumbnet.data.batches import epoch_order
from thumbnet.errors import Interrupted, UserError
from thumbnet.recipes import recipe, vary
from thumbnet.recipes.recipe_file import recipe_table
from thumbnet.runs.run import Run
from thumbnet.signals import StopRequested, StopSignals
from thumbnet.training import loop
from thumbnet.training.loop import train
from thumbnet.training.selection import UNKNOWN, Rounds, hardest, hardness
from thumbnet.training.state import Position

HERE = torch.device("cpu")


def test_where_all_images_are_trained_on_a_step_gets_its_part_of_its_epochs_order():
    chosen = recipe("general", batch_size=30, seed=5)
    rounds = Rounds(chosen, 100, HERE)
    for epoch in range(3):
        order = epoch_order(100, seed=5, epoch=epoch)
        for step in range(3):
            stretch, mirrored = rounds.at(epoch * 3 + step)
            assert stretch.tolist() == order[30 * step :][:30].tolist()
            assert torch.equal(mirrored, mirrored_in_epoch(100, seed=5, epoch=epoch))
            assert torch.equal(hardest(stretch, torch.empty(0), chosen, 1.0), stretch)


def test_stretches_to_choose_from_hold_each_image_once_a_round():
    rounds = Rounds(recipe("general", batch_size=20, hardest=0.5), 105, HERE)
    for number in range(2):
        stretches = [rounds.at(2 * number + place)[0].tolist() for place in range(2)]
        assert [len(stretch) for stretch in stretches] == [40, 40]
        assert len(set(stretches[0] + stretches[1])) == 80
    again = Rounds(recipe("general", batch_size=20, hardest=0.5), 105, HERE)
    assert again.at(3)[0].tolist() == stretches[1]  # whatever was asked for before


def test_a_stretch_is_never_longer_than_the_images_are_many():
    stretch, _ = Rounds(recipe("general", batch_size=60, hardest=0.5), 70, HERE).at(4)
    assert sorted(stretch.tolist()) == list(range(70))


def test_the_largest_losses_are_chosen_unknown_ones_first_and_no_image_is_passed_over_twice_in_turn():
    chosen = recipe("general", batch_size=3, hardest=0.5, hardest_after=0.25)
    losses = torch.tensor([0.1, UNKNOWN, 0.5, 0.2, 0.9, 0.3])
    stretch = torch.tensor([5, 4, 3, 2, 1, 0])
    assert hardest(stretch, losses, chosen, 0.24).tolist() == [5, 4, 3]  # too early: simply the first
    assert hardest(stretch, losses, chosen, 0.25).tolist() == [4, 2, 1]
    assert losses.tolist() == pytest.approx([UNKNOWN, UNKNOWN, 0.5, UNKNOWN, 0.9, UNKNOWN])
    losses[1] = 2.0  # now trained on
    assert hardest(stretch, losses, chosen, 0.25).tolist() == [5, 3, 0]  # those passed over the last time
    assert hardest(stretch, torch.ones(6), chosen, 0.25).tolist() == [5, 4, 3]  # equal ones as they come


def losses_told(monkeypatch):
    """Notes of each step what was chosen from, with which losses, and what was chosen and kept."""
    steps = []

    def choosing(stretch, losses, recipe, progress, keep=loop.hardest):
        steps.append({"stretch": stretch, "losses": losses.clone()})
        steps[-1]["batch"] = keep(stretch, losses, recipe, progress)
        return steps[-1]["batch"]

    def keeping(self, batch, logits, targets, keep=Position.keep_losses):
        keep(self, batch, logits, targets)
        steps[-1] |= {"kept": self.losses.clone(), "logits": logits.clone(), "targets": targets}

    monkeypatch.setattr(loop, "hardest", choosing)
    monkeypatch.setattr(Position, "keep_losses", keeping)
    return steps


@pytest.mark.parametrize("members", [1, 2])
def test_a_run_trains_on_the_images_whose_losses_were_largest_when_they_were_trained_on(
    tiny, quick, tmp_path, monkeypatch, members
):
    steps = losses_told(monkeypatch)
    chosen = vary(quick, cutmix=0.0, mixup=0.0, hardest=0.5, hardest_after=0.3, epochs=6, members=members)
    run = train(chosen, tiny, tmp_path, machine=CPU, plots=False)
    assert len(steps) == 6 * (216 // 32)  # an epoch costs what it costs without
    known, moved = torch.full((216,), UNKNOWN), 0
    for number, step in enumerate(steps):
        stretch, batch = step["stretch"], step["batch"]
        assert torch.equal(step["losses"], known) and len(stretch) == 64
        if number / len(steps) < 0.3:
            assert torch.equal(batch, stretch[:32])
        else:
            left = sorted(set(stretch.tolist()) - set(batch.tolist()))
            assert known[batch].min() >= known[left].max()
            moved += not torch.equal(batch, stretch[:32])
            known[left] = UNKNOWN
        known[batch] = F.cross_entropy(step["logits"], step["targets"], reduction="none")
        assert torch.equal(step["kept"], known)
    assert run.finished and moved > 20


def test_what_a_mixed_image_costs_says_nothing_of_it():
    logits = torch.tensor([[0.7, 0.3], [0.9, 0.1]]).log()
    losses = [-torch.tensor(part).log().item() for part in (0.7, 0.1)]
    assert hardness(logits, torch.tensor([0, 1]), torch.zeros(2)).tolist() == pytest.approx(losses)
    mixed = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    assert hardness(logits, mixed, torch.full((2,), 5.0)).tolist() == pytest.approx([5, losses[1]])


def test_hardest_is_refused_where_it_could_choose_nothing(tiny, quick, tmp_path):
    with pytest.raises(UserError, match=r"hardest has no effect without batches that are not mixed; leave it out"):
        recipe("general", hardest=0.5, cutmix=0.5, mixup=0.5)
    assert recipe("general", hardest=0.5, cutmix=0.5, mixup=0.5, mix_until=0.9).hardest == 0.5
    few = "leaves nothing to choose from: a batch of 216 is all that a step sees of 216 training images"
    for changes, said in (
        ({"hardest": 0.99}, "hardest 0.99 leaves nothing to choose from"),
        ({"batch_size": 216}, few),
    ):
        chosen = vary(quick, **{"hardest": 0.5, "micro_batch": 0, **changes})
        with pytest.raises(UserError, match=said):
            train(chosen, tiny, tmp_path / "run", machine=CPU, plots=False)
    assert not (tmp_path / "run").exists()


def test_where_all_images_are_trained_on_no_losses_are_kept():
    position = Position(torch.zeros(4), torch.empty(0))
    position.keep_losses(torch.tensor([2, 0]), torch.zeros(2, 3), torch.tensor([1, 1]))
    assert list(position.tensors()) == ["totals"]


def test_a_run_begun_before_there_was_a_choice_is_read_and_goes_on(tiny, quick, tmp_path, monkeypatch):
    whole = train(quick, tiny, tmp_path / "whole", machine=CPU, plots=False)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "check", stopping_after(8))
        with pytest.raises(Interrupted):
            train(quick, tiny, tmp_path / "run", machine=CPU, plots=False)
    file = tmp_path / "run" / "recipe.toml"
    words = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in words if "hardest" not in line))
    assert len(file.read_text().splitlines()) == len(words) - 2
    resumed = train(Run.open(tmp_path / "run").recipe, tiny, tmp_path / "run", machine=CPU, plots=False)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    newer = ("hardest", "hardest_after", "members", "start_from", "balance", "leave_out", "loss", "augment", "own")
    older = {name: value for name, value in recipe_table(quick).items() if name not in newer}
    told = [{**older, "epochs": None}, whole.data["fingerprint"], whole.data["classes"]]
    assert whole.identity == hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def stopping_after(calls):
    """A replacement of `StopSignals.check`."""
    asked = []

    def check(self):
        asked.append(1)
        if len(asked) > calls:
            raise StopRequested("SIGTERM")

    return check
