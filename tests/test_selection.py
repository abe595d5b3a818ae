"""Which images a step trains on: all of them in turn, or the hardest."""

import pytest
import torch
from torch.nn import functional as F

from conftest import CPU
from thumbnet.augment import mirrored_in_epoch
from thumbnet.data.batches import epoch_order
from thumbnet.recipes import recipe, vary
from thumbnet.runs.run import Run
from thumbnet.training import loop
from thumbnet.training.loop import train
from thumbnet.training.selection import UNKNOWN, Rounds, hardest
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
    rounds = Rounds(recipe("general", batch_size=20, hardest=0.4), 105, HERE)
    for number in range(2):
        stretches = [rounds.at(2 * number + place)[0].tolist() for place in range(2)]
        assert [len(stretch) for stretch in stretches] == [50, 50]
        assert len(set(stretches[0] + stretches[1])) == 100
    again = Rounds(recipe("general", batch_size=20, hardest=0.4), 105, HERE)
    assert again.at(3)[0].tolist() == stretches[1]  # whatever was asked for before


def test_a_stretch_is_never_longer_than_the_images_are_many():
    stretch, _ = Rounds(recipe("general", batch_size=20, hardest=0.1), 70, HERE).at(4)
    assert sorted(stretch.tolist()) == list(range(70))


def test_the_largest_losses_are_chosen_images_never_trained_on_first_and_their_order_stays():
    chosen = recipe("general", batch_size=3, hardest=0.5, hardest_after=0.25)
    losses = torch.tensor([0.1, UNKNOWN, 0.5, 0.2, 0.9, 0.3])
    stretch = torch.tensor([5, 4, 3, 2, 1, 0])
    assert hardest(stretch, losses, chosen, 0.25).tolist() == [4, 2, 1]
    assert hardest(stretch, losses, chosen, 0.24).tolist() == [5, 4, 3]  # too early: simply the first
    assert hardest(stretch, torch.ones(6), chosen, 0.25).tolist() == [5, 4, 3]  # equal ones as they come


def losses_told(monkeypatch):
    """Notes of each step what was chosen from, with which losses, and what was chosen and kept."""
    steps = []

    def choosing(stretch, losses, recipe, progress, keep=loop.hardest):
        batch = keep(stretch, losses, recipe, progress)
        steps.append({"stretch": stretch, "losses": losses.clone(), "batch": batch, "progress": progress})
        return batch

    def keeping(self, batch, logits, targets, keep=Position.keep_losses):
        keep(self, batch, logits, targets)
        steps[-1] |= {"kept": self.losses.clone(), "logits": logits.clone(), "targets": targets}

    monkeypatch.setattr(loop, "hardest", choosing)
    monkeypatch.setattr(Position, "keep_losses", keeping)
    return steps


def test_a_run_trains_on_the_images_whose_losses_were_largest_when_they_were_trained_on(
    tiny, quick, tmp_path, monkeypatch
):
    steps = losses_told(monkeypatch)
    chosen = vary(quick, cutmix=0.0, mixup=0.0, hardest=0.5, hardest_after=0.3, epochs=6)
    run = train(chosen, tiny, tmp_path, machine=CPU, plots=False)
    assert len(steps) == 6 * (216 // 32)  # an epoch costs what it costs without
    known = torch.full((216,), UNKNOWN)
    for step in steps:
        assert torch.equal(step["losses"], known) and len(step["stretch"]) == 64
        if step["progress"] >= 0.3:
            left = set(step["stretch"].tolist()) - set(step["batch"].tolist())
            assert known[step["batch"]].min() >= known[sorted(left)].max()
        known[step["batch"]] = F.cross_entropy(step["logits"], step["targets"], reduction="none")
        assert torch.equal(step["kept"], known)
    assert run.finished and (known < UNKNOWN).all()


def test_of_mixed_images_what_is_above_the_least_possible_loss_is_kept():
    position = Position(torch.zeros(4), torch.full((3,), UNKNOWN))
    logits = torch.tensor([[0.7, 0.3], [0.9, 0.1]]).log()
    position.keep_losses(torch.tensor([2, 0]), logits, torch.tensor([[0.7, 0.3], [0.0, 1.0]]))
    assert position.losses[[2, 0]].tolist() == pytest.approx([0, -torch.tensor(0.1).log().item()], abs=1e-6)
    position.keep_losses(torch.tensor([0]), logits[1:], torch.tensor([0]))
    assert position.losses.tolist() == pytest.approx([-torch.tensor(0.9).log().item(), UNKNOWN, 0], abs=1e-6)


def test_where_all_images_are_trained_on_no_losses_are_kept():
    position = Position(torch.zeros(4), torch.empty(0))
    position.keep_losses(torch.tensor([2, 0]), torch.zeros(2, 3), torch.tensor([1, 1]))
    assert list(position.tensors()) == ["totals"]


def test_a_run_folder_of_before_there_was_a_choice_is_read(tiny, quick, tmp_path):
    run = train(quick, tiny, tmp_path / "run", machine=CPU, plots=False)
    words = (run.path / "recipe.toml").read_text()
    (run.path / "recipe.toml").write_text("".join(line for line in words.splitlines(True) if "hardest" not in line))
    assert len((run.path / "recipe.toml").read_text().splitlines()) == len(words.splitlines()) - 2
    assert Run.open(run.path).recipe == run.recipe and run.recipe.hardest == 1
