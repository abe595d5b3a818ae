"""The loop: what it writes, what it tells, and what it must never touch."""

import json
import math
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from conftest import CPU, Heard, assert_identical, identity
from thumbnet.augment import to_float
from thumbnet.backend import prepare
from thumbnet.data.batches import LockedSplit, whole
from thumbnet.errors import TrainingFailed, UserError
from thumbnet.judging.evaluation import predict_logits
from thumbnet.machine import Machine
from thumbnet.progress import Lines, epoch_line
from thumbnet.recipes import recipe, recipe_file, vary
from thumbnet.recipes.network import build_model
from thumbnet.runs.run import Run
from thumbnet.training import loop
from thumbnet.training.loop import train
from thumbnet.training.optimize import build_optimizer, l2_penalty, penalized_parameters
from thumbnet.training.preparation import class_weights, normalization
from thumbnet.training.step import loss_of

PLAIN = recipe("cifar10-resnet18", model="small_resnet", crop=1)  # SGD with L2 on a network of ordinary layers


@pytest.mark.parametrize("native", [True, False])
def test_emulated_bf16_is_told(tiny, quick, tmp_path, monkeypatch, native):
    monkeypatch.setattr(loop, "has_fast_bf16", lambda device: native)
    heard = Heard()
    train(quick, tiny, tmp_path / "run", machine=replace(CPU, precision="bf16"), reporter=heard)
    said = "note: no bf16 instructions here: bf16 is slower than --precision fp32, and its sums lose bits"
    assert (said in heard.lines) is not native


def test_training_depends_on_its_seed_and_not_on_the_global_generator(tiny, quick, unbroken, tmp_path):
    torch.manual_seed(12345)
    torch.rand(7)
    before = torch.random.get_rng_state()
    again = train(quick, tiny, tmp_path / "again", machine=CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_identical(again, unbroken(quick))
    other = train(vary(quick, seed=1), tiny, tmp_path / "other", machine=CPU)
    assert not torch.equal(identity(other)[0]["network.head.weight"], identity(again)[0]["network.head.weight"])


def test_training_never_opens_the_test_split(tiny, quick, tmp_path, monkeypatch):
    def refuse(self):
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(LockedSplit, "unlock", refuse)
    run = train(vary(quick, epochs=1), tiny, tmp_path / "run", machine=CPU)
    assert run.finished
    assert run.test_openings == 0


def test_the_run_folder_holds_what_it_promises(tiny, quick, unbroken):
    run = unbroken(quick)
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "recipe.toml", "changes.toml", "data.json", "environment.json", "metrics.jsonl",
        "model.safetensors", "summary.json", "plots",
    }  # fmt: skip
    assert {path.name for path in (run.path / "plots").iterdir()} == {"curves.png", "classic.png"}
    assert not (run.path / "checkpoint").exists()
    assert Run.open(run.path).recipe == quick
    changes = (run.path / "changes.toml").read_text()
    assert "epochs = 3" in changes and "momentum" not in changes
    assert not [path for path in run.path.rglob("*") if ".tmp-" in path.name]


def test_metrics_have_a_row_per_epoch_and_the_summary_repeats_the_last(tiny, quick, unbroken):
    run = unbroken(quick)
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3]
    last = run.metrics[-1]
    assert run.summary["validation_accuracy"] == last["validation_accuracy"]
    assert run.summary["train_images"] == 216
    assert run.summary["validation_images"] == 24
    assert 0 < last["train_accuracy"] <= last["train_top5"] <= 1
    assert run.metrics[0]["train_loss"] > last["train_loss"]
    assert run.summary.keys() >= {
        "run", "recipe", "seed", "device", "epochs", "validation_accuracy", "train_seconds", "wall_seconds", "images_per_second"
    }  # fmt: skip


def test_training_figures_are_means_over_the_augmented_batches(tiny, tmp_path, monkeypatch):
    seen = []

    def count(self, loss, logits, labels, keep=loop.Position.count):
        seen.append((loss.item() * len(labels), (logits.argmax(1) == labels).sum().item(), len(labels)))
        keep(self, loss, logits, labels)

    monkeypatch.setattr(loop.Position, "count", count)
    run = train(vary(PLAIN, epochs=1, batch_size=50), tiny, tmp_path / "run", machine=CPU)
    losses, hits, images = (sum(column) for column in zip(*seen, strict=True))
    assert images == 200  # the ragged last batch is left out
    assert run.metrics[0]["train_loss"] == pytest.approx(losses / images)
    assert run.metrics[0]["train_accuracy"] == hits / images


def test_without_validation_nothing_is_measured_and_all_images_train(tiny, quick, tmp_path):
    run = train(vary(quick, validation=0, epochs=1), tiny, tmp_path / "run", machine=CPU)
    assert run.summary["validation_accuracy"] is None
    assert run.summary["train_images"] == 240
    assert (run.path / "plots" / "curves.png").stat().st_size > 10_000


def test_names_stand_for_recipe_and_data(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "named_recipe", lambda name: {"mine": vary(quick, epochs=0.05)}[name])
    run = train("mine", "fashion-mini", tmp_path / "run", machine=CPU, plots=False)
    assert run.data["name"] == "fashion-mini" and run.recipe.epochs == 0.05
    monkeypatch.undo()
    with pytest.raises(UserError, match="unknown recipe 'genral'; did you mean 'general'"):
        train("genral", "fashion-mini", tmp_path / "none")
    with pytest.raises(UserError, match="takes a recipe and a data set, or their names; received Recipe and list"):
        train(quick, [1, 2], tmp_path / "none")


def test_the_first_loss_that_is_not_finite_stops_the_run_and_says_what_to_do(tiny, tmp_path):
    wild = vary(PLAIN, learning_rate=1e30, warmup=0, momentum=0, epochs=2, batch_size=32)
    with pytest.raises(
        TrainingFailed, match=r"the loss is nan in epoch 1, step \d: .* --learning-rate 5e\+29 \(now 1e\+30\)"
    ):
        train(wild, tiny, tmp_path / "run", machine=CPU)
    steps = vary(wild, schedule="constant")  # has no warm-up to be made longer
    with pytest.raises(TrainingFailed, match=r"with --learning-rate 5e\+29 \(now 1e\+30\); .* is left as it is"):
        train(steps, tiny, tmp_path / "constant", machine=CPU)
    assert not Run.open(tmp_path / "run").finished
    assert not list((tmp_path / "run" / "checkpoint").glob("*.json"))


def test_weights_ruined_by_the_last_step_of_an_epoch_are_noticed_before_the_metrics(tiny, tmp_path):
    wild = vary(PLAIN, learning_rate=1e30, warmup=0, momentum=0, epochs=1, batch_size=216)
    with pytest.raises(TrainingFailed, match="in epoch 1, step 1"):
        train(wild, tiny, tmp_path / "run", machine=CPU)
    assert Run.open(tmp_path / "run").metrics == []


def test_a_taken_folder_is_refused_and_left_as_it_was(tiny, quick, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    for resume in (True, False):
        with pytest.raises(UserError, match=str(tmp_path)):
            train(quick, tiny, tmp_path, machine=CPU, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_batch_larger_than_the_training_set_is_refused_before_anything_is_written(tiny, quick, tmp_path):
    with pytest.raises(UserError, match="batch_size 512 is larger than the 216 training images of tiny"):
        train(vary(quick, batch_size=512), tiny, tmp_path / "run", machine=CPU)
    assert not (tmp_path / "run").exists()


def test_bf16_and_fp32_learn_alike(tiny, tmp_path):
    calm = vary(PLAIN, epochs=2, batch_size=32, learning_rate=0.01)
    bf16 = train(calm, tiny, tmp_path / "bf16", machine=Machine(device="cpu", threads=1, precision="bf16"))
    fp32 = train(calm, tiny, tmp_path / "fp32", machine=CPU)
    assert (bf16.summary["precision"], fp32.summary["precision"]) == ("bf16", "fp32")
    losses, reference = ([row["train_loss"] for row in run.metrics] for run in (bf16, fp32))
    assert losses == pytest.approx(reference, rel=0.05)
    assert losses != reference
    assert {tensor.dtype for tensor in load_file(bf16.path / "model.safetensors").values()} == {
        torch.float32,
        torch.int64,
    }


def test_threads_asked_for_once_do_not_stay_when_nobody_asks():
    torch.set_num_threads(3)  # by the process, for all it does
    assert prepare(replace(CPU, threads=1)).threads == 1
    assert prepare(replace(CPU, threads=None)).threads == 3
    assert prepare(replace(CPU, threads=2)).threads == 2
    torch.set_num_threads(1)  # by the process again
    assert prepare(replace(CPU, threads=None)).threads == 1


def test_the_training_clock_stops_before_plots_are_drawn(tiny, quick, tmp_path, monkeypatch):
    from thumbnet.plots import curves

    monkeypatch.setattr(curves, "save_run_plots", lambda run: time.sleep(3))
    run = train(quick, tiny, tmp_path / "run", machine=CPU)
    assert run.summary["train_seconds"] < run.summary["wall_seconds"] - 3


def test_the_classic_l2_reaches_the_kernels_of_the_stages_and_nothing_else():
    classic = recipe("cifar10-classic")
    model = build_model(classic, channels=3, classes=10)
    names = [name for name, _ in penalized_parameters(model, classic)]
    assert len(names) == 16 * 3 + 4
    assert all(".stages." in name and name.endswith(".weight") for name in names)
    assert not any("norm" in name or "shortcut.0" in name for name in names)
    expected = 1e-3 * sum((dict(model.named_parameters())[name].double() ** 2).sum().item() for name in names)
    assert l2_penalty(model, classic) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_coupled_l2_is_the_penalty_added_to_the_loss(optimizer):
    """One step by build_optimizer against one where autograd differentiates the penalised loss."""
    changed = vary(
        PLAIN, optimizer=optimizer, l2=0.03, learning_rate=0.01, **({"epsilon": 1e-4} if optimizer == "adam" else {})
    )
    ours, theirs = (build_model(changed, channels=1, classes=10).double() for _ in range(2))
    images = torch.rand(8, 1, 28, 28, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8)
    kernels = [parameter for parameter in theirs.parameters() if parameter.ndim > 1]
    if optimizer == "adam":
        reference = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-4)
    else:
        reference = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    pairs = ((ours, build_optimizer(ours, changed), 0), (theirs, reference, 0.03))
    for model, stepper, factor in pairs:
        for _ in range(3):
            penalty = sum((kernel**2).sum() for kernel in kernels) if factor else 0
            loss = torch.nn.functional.cross_entropy(model(images), labels) + factor * penalty
            stepper.zero_grad()
            loss.backward()
            stepper.step()
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=1e-9, atol=1e-12)


def test_normalisation_is_the_mean_and_deviation_of_the_training_images(tiny):
    split = tiny.with_validation(0.1, seed=0).train
    pixels = split.images[split.rows].double() / 255
    found = normalization(recipe("general"), split)
    assert found["mean"][0] == pytest.approx(pixels.mean().item())
    assert found["std"][0] == pytest.approx(pixels.std(correction=0).item())
    assert normalization(recipe("cifar10-classic"), split) == {"mean": [0.0], "std": [1.0]}


def test_metrics_are_plain_json_without_nan(unbroken, quick):
    for line in (unbroken(quick).path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in metrics.jsonl"))
        assert all(value is None or math.isfinite(value) for value in row.values())


def test_a_new_run_folder_is_complete_or_absent(tiny, quick, tmp_path, monkeypatch):
    """Cut off while the folder is being made, nothing stands in the way of a second try."""

    def write_text(path, text, keep=recipe_file.write_text):
        if path.name == "recipe.toml":
            raise KeyboardInterrupt
        keep(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(recipe_file, "write_text", write_text)
        with pytest.raises(KeyboardInterrupt):
            train(quick, tiny, tmp_path / "run", machine=CPU)
    assert list(tmp_path.iterdir()) == []
    assert train(vary(quick, epochs=1), tiny, tmp_path / "run", machine=CPU).finished


def test_dataset_to_moves_shared_images_once(tiny):
    data = tiny.with_validation(0.1, seed=0).to(torch.device("cpu"))
    assert data.train.images is data.validation.images
    assert torch.equal(data.train.rows, tiny.with_validation(0.1, seed=0).train.rows)


def test_the_bar_shows_loss_accuracy_speed_and_time_left(tiny, quick, tmp_path, capfd, monkeypatch):
    from thumbnet.progress import Bar

    monkeypatch.setattr(Bar, "every", 0.0)
    shown = []
    with Bar() as bar:
        keep = bar.progress.update
        monkeypatch.setattr(bar.progress, "update", lambda task, **more: (shown.append(more), keep(task, **more)))
        train(vary(quick, epochs=1), tiny, tmp_path / "run", machine=CPU, reporter=bar)
    text = shown[-1]["description"]
    assert shown[-1]["completed"] == shown[-1]["total"] == 6
    assert all(part in text for part in ("epoch 1/1", "loss", "accuracy", "images/s", "left"))
    assert any("epoch   1/1" in line for line in capfd.readouterr().err.splitlines())


def test_of_hundreds_of_short_epochs_the_first_the_last_and_one_a_second_are_told(capsys, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("thumbnet.progress.time.monotonic", lambda: next(clock) / 8)  # two looks an epoch
    row = {"train_loss": 1.0, "train_accuracy": 0.5, "images_per_second": 1.0}
    lines = Lines()
    for epoch in range(1, 301):
        lines.epoch({"epoch": epoch, **row}, 299.5)
    told = [int(line.split()[1].split("/")[0]) for line in capsys.readouterr().err.splitlines()]
    assert told == [*range(1, 300, 4), 300]


def test_the_line_of_an_epoch_fits_a_terminal_at_its_longest():
    row = {"epoch": 160, "train_loss": 12.3, "train_accuracy": 1.0, "validation_loss": 12.3, "validation_accuracy": 1.0}
    line = epoch_line(row | {"images_per_second": 160_916.0}, 160)
    assert line == "epoch 160/160  loss 12.3000  acc 100.00%  val 12.3000  100.00%  160,916/s" and len(line) <= 80


def test_a_cap_on_gpu_memory_is_handed_to_cuda_as_a_part_of_its_memory(monkeypatch):
    """There may be no GPU here: the calls that would reach it are caught."""
    from types import SimpleNamespace

    from thumbnet import backend

    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *words: asked.append(words))
    backend.limit_gpu_memory(3072, torch.device("cuda"))
    assert asked == [(3072 / 8192, 0)]
    with pytest.raises(UserError, match="--gpu-memory-limit 9000MB; the GPU has 8192 MB"):
        backend.limit_gpu_memory(9000, torch.device("cuda"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fast_recipe_trains_and_ends_at_its_last_resolution_in_either_precision(tiny, tmp_path, precision):
    made = recipe("cifar10-83", widths=(16, 16, 32), epochs=2, batch_size=24, resolution=(0.75, 1.0))
    run = train(made, tiny, tmp_path / "run", machine=Machine(device="cpu", precision=precision, threads=1))
    losses = [row["train_loss"] for row in run.metrics]
    assert losses[1] < losses[0]
    assert run.model().resize.part == 1.0
    assert run.environment["precision"] == precision


def test_a_run_of_fewer_steps_than_resolutions_is_validated_as_its_network_is_used(tiny, tmp_path):
    made = recipe("general", widths=(16, 16, 32), epochs=2, batch_size=200, resolution=(0.5, 0.75, 1.0))  # two steps
    run = train(made, tiny, tmp_path / "run", machine=CPU, plots=False)
    used = predict_logits(run.model(), tiny.with_validation(**made.cut).validation, prepare(CPU))
    torch.testing.assert_close(run.predictions("validation").logits, used)


def test_class_weights_are_powers_of_the_inverse_counts_with_a_mean_of_one():
    labels = torch.tensor([0] * 9 + [1] * 4 + [2])
    split = whole(torch.zeros(14, 1, 2, 2, dtype=torch.uint8), labels)
    assert class_weights(recipe("general"), split, 3) is None
    for balance, expected in ((1, [1, 9 / 4, 9]), (0.5, [1, 3 / 2, 3])):
        found = class_weights(recipe("general", balance=balance), split, 3)
        assert (found / found[0]).tolist() == pytest.approx(expected)
        assert found[labels].mean().item() == pytest.approx(1)
    absent = class_weights(recipe("general", balance=1), split, 4)  # a class that has no image left
    assert absent.isfinite().all() and absent[labels].mean().item() == pytest.approx(1)


def test_an_image_counts_in_the_loss_as_its_class_does_and_a_mixed_one_as_its_parts():
    logits, labels, weights = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0]), torch.tensor([0.5, 1.0, 4.0])
    smoothed, plainly = (recipe("general", label_smoothing=smoothing) for smoothing in (0.2, 0))
    each = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2, reduction="none")
    assert loss_of(logits, labels, smoothed, weights).item() == pytest.approx((weights[labels] * each).mean().item())
    mixed = torch.nn.functional.one_hot(labels, 3) * 0.75 + torch.nn.functional.one_hot(labels.flip(0), 3) * 0.25
    each = torch.nn.functional.cross_entropy(logits, mixed, reduction="none")
    parts = 0.75 * weights[labels] + 0.25 * weights[labels.flip(0)]
    assert loss_of(logits, mixed, plainly, weights).item() == pytest.approx((parts * each).mean().item())
    members = torch.stack((logits, logits.flip(1)), dim=1)
    both = [loss_of(members[:, m], labels, smoothed, weights).item() for m in range(2)]
    assert loss_of(members, labels, smoothed, weights).item() == pytest.approx(sum(both) / 2)


def test_a_balanced_run_learns_small_classes_that_are_passed_over_without(tiny, quick, tmp_path):
    rare = torch.cat([(tiny.development.labels == label).nonzero().flatten()[:2] for label in range(5, 10)])
    common = (tiny.development.labels < 5).nonzero().flatten()
    uneven = replace(tiny, development=replace(tiny.development, rows=torch.cat([common, rare]).sort().values))
    recalls = []
    for balance in (0, 1):
        run = train(vary(quick, balance=balance, epochs=6), uneven, tmp_path / f"{balance}", machine=CPU, plots=False)
        said = run.model()(to_float(tiny.development.images[rare])).argmax(1)
        recalls.append((said == tiny.development.labels[rare]).float().mean().item())
    assert recalls[1] > recalls[0]


def test_micro_batches_give_the_gradients_of_the_whole_batch_where_nothing_is_normalised_among_them(tiny):
    from thumbnet.backend import prepare
    from thumbnet.training.step import gradients

    backend = prepare(Machine(device="cpu", precision="fp32"))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    x, labels = torch.rand(8, 3, 2, 2), torch.arange(8) % 4
    found = []
    for size in (0, 2):
        model.zero_grad()
        loss, logits = gradients(model, x, labels, recipe("general", batch_size=8, micro_batch=size), backend)
        found.append((loss, logits, model[1].weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1])
