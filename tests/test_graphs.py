"""Updates that a GPU replays. There may be none here: a recording that works the same way on a CPU stands in for its."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from conftest import CPU
from thumbnet.recipes import vary
from thumbnet.training import graphs, loop, step
from thumbnet.training.graphs import WARM_UP, RecordedUpdate, Recordings
from thumbnet.training.loop import train
from thumbnet.training.optimize import set_learning_rate, with_peaks
from thumbnet.training.workshop import Workshop


def recording_on_cpu(update, inputs):
    """As a CUDA graph: nothing is carried out at first; a replay works on the same addresses, for inputs and for results."""
    results = []

    def replay():
        loss, logits = update(*inputs)
        results[0].copy_(loss)
        results[1].copy_(logits)

    results += [torch.empty(()), torch.empty(len(inputs[0]), 10)]
    return replay, tuple(results)


@pytest.fixture
def recorded(monkeypatch):
    """Counts the recordings, by resolution."""
    count = Counter()

    def record(update, inputs):
        count[inputs[0].shape] += 1
        return recording_on_cpu(update, inputs)

    monkeypatch.setattr(graphs, "record", record)
    return count


def test_a_run_of_replayed_updates_ends_with_the_bits_of_a_plain_one(tiny, quick, recorded, tmp_path, monkeypatch):
    chosen = vary(quick, resolution=(0.75, 1.0), stem_until=0.7, epochs=6, micro_batch=0)
    plain = train(chosen, tiny, tmp_path / "plain", machine=CPU, plots=False)
    made = []

    def updating(model, optimizer, *rest, keep=loop.updating):
        from thumbnet.models.whitening import stem_is_trained

        kind = lambda: (model.resize.part, stem_is_trained(model.network))  # noqa: E731
        made.append(RecordedUpdate(keep(model, optimizer, *rest), kind, rest[3]))
        return made[-1]

    monkeypatch.setattr(loop, "updating", updating)
    replayed = train(chosen, tiny, tmp_path / "replayed", machine=CPU, plots=False)
    assert (plain.path / "model.safetensors").read_bytes() == (replayed.path / "model.safetensors").read_bytes()
    [update] = made
    parts = {(key[0][0], key[0][1]) for key in update.recordings.made}
    assert parts == {(0.75, True), (1.0, True), (1.0, False)}  # 0.7 of the run
    assert sum(update.recordings.calls.values()) == 6 * (216 // 32)


def test_runs_after_the_first_in_a_workshop_replay_from_their_first_step_and_are_those_of_fresh_ones(
    tiny, quick, recorded, tmp_path, monkeypatch
):
    chosen = [vary(quick, epochs=2, cutmix=0.0, mixup=0.0, seed=seed) for seed in (0, 1, 2)]
    plain = [train(each, tiny, tmp_path / f"plain{each.seed}", machine=CPU, plots=False) for each in chosen]

    def updating(model, optimizer, *rest, keep=loop.updating):
        return RecordedUpdate(keep(model, optimizer, *rest), lambda: model.resize.part, rest[3])

    monkeypatch.setattr(loop, "updating", updating)
    workshop, networks = Workshop(), set()
    for each, alone in zip(chosen, plain, strict=True):
        run = train(each, tiny, tmp_path / f"kept{each.seed}", machine=CPU, plots=False, workshop=workshop)
        assert (run.path / "model.safetensors").read_bytes() == (alone.path / "model.safetensors").read_bytes()
        networks.add(id(workshop.model))
    assert len(networks) == 1 and sum(recorded.values()) == 2  # one for each resolution
    train(
        vary(quick, epochs=2, label_smoothing=0.3),
        tiny,
        tmp_path / "other",
        machine=CPU,
        plots=False,
        workshop=workshop,
    )
    assert id(workshop.model) not in networks  # another recipe has a network of its own


def test_runs_in_a_workshop_are_balanced_by_the_counts_of_their_own_images(
    tiny, quick, recorded, tmp_path, monkeypatch
):
    chosen = vary(quick, epochs=2, balance=1.0)
    fewer = replace(tiny.development, rows=tiny.development.rows[tiny.development.labels != 3])
    sets = {"all": tiny, "fewer": replace(tiny, development=fewer)}
    plain = {
        name: train(chosen, data, tmp_path / f"plain-{name}", machine=CPU, plots=False) for name, data in sets.items()
    }

    def updating(model, optimizer, *rest, keep=loop.updating):
        return RecordedUpdate(keep(model, optimizer, *rest), lambda: model.resize.part, rest[3])

    monkeypatch.setattr(loop, "updating", updating)
    workshop = Workshop()
    for name, data in sets.items():
        run = train(chosen, data, tmp_path / f"kept-{name}", machine=CPU, plots=False, workshop=workshop)
        assert (run.path / "model.safetensors").read_bytes() == (plain[name].path / "model.safetensors").read_bytes()


def test_the_first_calls_are_carried_out_as_they_are_and_the_next_ones_replayed(recorded):
    carried_out = []

    def update(x, targets):
        carried_out.append(x)
        return x.sum(), x.flatten(1)[:, :10] * targets[:, None]

    replayed = RecordedUpdate(update, lambda: "one", Recordings())
    for number in range(WARM_UP + 2):
        x, targets = torch.full((4, 3, 2, 2), float(number)), torch.arange(4.0)
        loss, logits = replayed(x, targets)
        assert loss.item() == 48 * number
        assert torch.equal(logits, x.flatten(1)[:, :10] * targets[:, None])
    assert [x is y for x, y in zip(carried_out[WARM_UP:], carried_out[WARM_UP + 1 :], strict=False)] == [True]
    assert sum(recorded.values()) == 1
    replayed(torch.ones(2, 3, 2, 2), torch.ones(2))  # another shape has calls of its own
    assert sum(recorded.values()) == 1


@pytest.mark.parametrize("muon", [True, False])
def test_a_rate_that_lies_on_the_device_gives_the_same_step(muon):
    from thumbnet.training.optimize import Muon

    ends = []
    for recordable in (False, True):
        kernel = torch.nn.Parameter(torch.linspace(-1, 1, 24).view(2, 3, 2, 2).clone())
        groups = [{"params": [kernel], "lr": 0.1, "orthogonalize": muon}]
        optimizer = with_peaks(
            Muon(groups, momentum=0.6, sgd_momentum=0.85, compute=torch.float32), recordable=recordable
        )
        for factor in (1.0, 0.5, 0.1):
            set_learning_rate(optimizer, factor)
            kernel.grad = kernel.detach().sin()
            optimizer.step()
        assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) == recordable
        ends.append(kernel.detach())
    torch.testing.assert_close(*ends)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is needed")
@pytest.mark.parametrize("optimizer", ["muon", "adam", "sgd"])
def test_on_a_gpu_replayed_updates_train_as_plain_ones_do(tiny, quick, tmp_path, monkeypatch, optimizer):
    from thumbnet.machine import Machine

    on_gpu = Machine(device="cuda", precision="fp32")
    chosen = vary(quick, optimizer=optimizer, learning_rate=0.01, epochs=6, micro_batch=0)
    replayed = train(chosen, tiny, tmp_path / "replayed", machine=on_gpu, plots=False)
    monkeypatch.setattr(step, "RecordedUpdate", lambda update, kind, recordings: update)
    plain = train(chosen, tiny, tmp_path / "plain", machine=on_gpu, plots=False)
    losses = [[row["train_loss"] for row in run.metrics] for run in (replayed, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
