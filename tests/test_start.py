"""Runs that begin with the weights of an earlier one: what is taken over, what is refused, and that it helps."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from conftest import CPU, Heard, assert_identical, pictures, thumbnet
from thumbnet import signals
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import load_dataset
from thumbnet.errors import Interrupted, UserError
from thumbnet.recipes import name_of_group, recipe, title_of, vary
from thumbnet.report.sections import environment
from thumbnet.runs.run import Run
from thumbnet.training.loop import train

SHORT = ("--epochs", "1", "--threads", "1", "--widths", "8", "16", "16")
STILL = {"learning_rate": 0.0, "bias_rate": 0.0, "head_rate": 0.0, "dropout": (), "epochs": 1}


def of_classes(data, names):
    """The images of some classes alone, as a set of its own."""
    labels = [data.classes.index(name) for name in names]

    def part(split):
        rows = torch.cat([torch.nonzero(split.labels == label).flatten() for label in labels]).sort().values
        new = torch.tensor([labels.index(int(label)) for label in split.labels[rows]])
        return replace(split, images=split.images[rows], labels=new, rows=torch.arange(len(rows)))

    development = part(data.development)
    mark = "".join(names)
    return replace(
        data, name=f"some of {data.name}", classes=tuple(names), train=development, development=development,
        validation=None, test=None, fingerprint=mark, fingerprint_of_training=mark, facts={"location": mark},
    )  # fmt: skip


@pytest.fixture(scope="module")
def halves(tiny):
    return of_classes(tiny, tiny.classes[:5]), of_classes(tiny, tiny.classes[5:])


@pytest.fixture(scope="module")
def earlier(halves, tmp_path_factory):
    """A run on five of the classes."""
    made = recipe("general", widths=(8, 16, 16), epochs=6, batch_size=8)
    return train(made, halves[0], tmp_path_factory.mktemp("earlier") / "run", machine=CPU)


def numbers(run):
    """Weights by name, without the statistics that a step moves whatever its rate."""
    return {name: tensor for name, tensor in load_file(run.path / "model.safetensors").items() if "running" not in name}


def alike(one, other):
    """The same but for rounding and the norm of kernels: Muon sets that anew before every step."""
    if one.shape != other.shape:
        return False
    one, other = (tensor.double() / (tensor.double().norm() if tensor.ndim == 4 else 1) for tensor in (one, other))
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("same_classes", [True, False])
def test_a_run_begins_with_all_weights_but_for_the_dense_layer_of_other_classes(
    halves, earlier, tmp_path, same_classes
):
    data = halves[0] if same_classes else halves[1]
    made = vary(earlier.recipe, start_from=str(earlier.path), **STILL)
    begun, before = numbers(train(made, data, tmp_path / "run", machine=CPU)), numbers(earlier)
    assert begun.keys() == before.keys() and "normalize.mean" in begun and "network.whitening.filters" in begun
    differing = [name for name in begun if not alike(begun[name], before[name])]
    assert [name for name in differing if "tracked" not in name] == ([] if same_classes else ["network.head.weight"])


def test_what_was_learnt_of_other_classes_helps_where_images_are_few(tmp_path):
    data = load_dataset("fashion-mini", validation=0)
    known, new = of_classes(data, data.classes[:5]), of_classes(data, data.classes[5:])
    many = recipe("general", widths=(8, 16, 16), epochs=2, batch_size=50)
    first = train(many, known, tmp_path / "first", machine=CPU, plots=False)
    few = vary(many, epochs=3, batch_size=10, learning_rate=0.05, validation=0.96, resolution=(1.0,))
    scratch = train(few, new, tmp_path / "scratch", machine=CPU, plots=False)
    begun = train(vary(few, start_from=str(first.path)), new, tmp_path / "begun", machine=CPU, plots=False)
    accuracies = [run.summary["validation_accuracy"] for run in (scratch, begun)]
    assert accuracies[1] > accuracies[0] + 0.05, accuracies  # 14 points more when this was written


def test_the_folder_of_a_run_says_what_it_began_with_and_so_does_its_first_line(halves, earlier, tmp_path):
    heard = Heard()
    made = vary(earlier.recipe, start_from=str(earlier.path), **STILL)
    run = train(made, halves[1], tmp_path / "run", machine=CPU, reporter=heard)
    title = earlier.data.title
    assert f"begins with the weights of {earlier.path}: general on {title}" in heard.lines
    assert run.environment["began_with"] == {
        "run": str(earlier.path), "recipe": "general", "dataset": title, "model_sha256": earlier.summary["model_sha256"],
        "fingerprint": earlier.data["fingerprint"], "fingerprint_of_training": earlier.data["fingerprint_of_training"],
        "held_out": {"fraction": 0.1, "seed": 0, "folds": 0, "fold": 0, "copies_together": True},
        "location": earlier.data["location"],
        "began_with": None,
    }  # fmt: skip
    rows = [value for name, value in environment(run) if name == "began with"]
    assert rows == [f"general on {title}, {earlier.path}, SHA-256 of its weights {earlier.summary['model_sha256']}"]
    assert "began_with" not in earlier.environment and Run.open(run.path).recipe.start_from == str(earlier.path)


@pytest.mark.parametrize("call", [2, 9])
def test_a_stopped_one_goes_on_to_the_same_bits(halves, earlier, tmp_path, monkeypatch, call):
    made = vary(earlier.recipe, start_from=str(earlier.path), epochs=2)
    asked = []

    def check(self):
        asked.append(1)
        if len(asked) == call:
            raise signals.StopRequested("SIGTERM")

    with monkeypatch.context() as patched:
        patched.setattr(signals.StopSignals, "check", check)
        with pytest.raises(Interrupted):
            train(made, halves[1], tmp_path / "run", machine=CPU)
    resumed = train(made, halves[1], tmp_path / "run", machine=CPU)
    assert_identical(resumed, train(made, halves[1], tmp_path / "whole", machine=CPU))


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("cut", "changes", "advice"),
    [
        ({}, {"seed": 1}, "hold the same ones out by --validation 0.1 --seed 0"),
        ({}, {"validation": 0.2}, "hold the same ones out by --validation 0.1 --seed 0"),
        ({"validation": 0.0}, {"validation": 0.1}, "it held none out, so train on all too, by --validation 0"),
        ({"folds": 4, "fold": 1}, {"fold": 2}, "hold the same ones out by --folds 4 --fold 1 --seed 0"),
    ],
)
def test_what_was_trained_on_before_is_not_held_out_afterwards(halves, earlier, tmp_path, cut, changes, advice):
    first = train(vary(earlier.recipe, epochs=0.2, **cut), halves[0], tmp_path / "first", machine=CPU)
    made = vary(first.recipe, start_from=str(first.path))
    with pytest.raises(UserError) as caught:
        train(vary(made, **changes), halves[0], tmp_path / "run", machine=CPU)
    said = f"{first.path} was trained on images of {halves[0].name} that are held out here; {advice}"
    assert said in str(caught.value) and not (tmp_path / "run").exists()
    assert train(made, halves[0], tmp_path / "alike", machine=CPU).finished


def test_a_run_that_parted_equal_images_is_no_beginning_where_they_are_held_out_together(halves, earlier, tmp_path):
    images = halves[0].development.images.clone()
    images[1::2] = images[: len(images) // 2 * 2 : 2]
    twice = replace(halves[0].development, images=images)
    data = replace(halves[0], development=twice, train=twice)
    first = train(vary(earlier.recipe, epochs=0.2), data, tmp_path / "first", machine=CPU)
    made = vary(first.recipe, start_from=str(first.path))
    assert train(made, data, tmp_path / "alike", machine=CPU).finished
    record = json.loads((first.path / "data.json").read_text())
    del record["copies_together"]  # as runs were before
    (first.path / "data.json").write_text(json.dumps(record))
    advice = "equal images were not yet held out together then, so train it again, or start from another run"
    with pytest.raises(UserError, match=advice):
        train(made, data, tmp_path / "run", machine=CPU)
    assert train(vary(earlier.recipe, start_from=str(first.path)), halves[0], tmp_path / "none", machine=CPU).finished


def test_members_of_an_ensemble_begin_with_those_of_the_earlier_one(halves, earlier, tmp_path):
    both = train(vary(earlier.recipe, members=2, epochs=0.2), halves[0], tmp_path / "both", machine=CPU)
    begun = train(vary(both.recipe, start_from=str(both.path), **STILL), halves[1], tmp_path / "run", machine=CPU)
    before, after = numbers(both), numbers(begun)
    kept = [name for name in before if "head" not in name and "tracked" not in name]
    assert any("members.1" in name for name in kept) and all(alike(before[name], after[name]) for name in kept)
    with pytest.raises(UserError, match=r"has another network: .*members 2; give the same"):
        train(vary(earlier.recipe, start_from=str(both.path)), halves[1], tmp_path / "one", machine=CPU)


def test_nor_by_way_of_a_run_in_between(halves, earlier, tmp_path):
    made = vary(earlier.recipe, start_from=str(earlier.path), epochs=0.2)
    between = train(made, halves[1], tmp_path / "between", machine=CPU)
    back = vary(made, start_from=str(between.path), seed=1)
    with pytest.raises(UserError) as caught:
        train(back, halves[0], tmp_path / "run", machine=CPU)
    assert str(caught.value).startswith(f"{earlier.path} was trained on images of {halves[0].name} that are held out")
    assert train(vary(back, seed=0), halves[0], tmp_path / "alike", machine=CPU).environment["began_with"]["began_with"]
    file = between.path / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"began_with": {"run": 3}}))
    with pytest.raises(UserError, match=r"has a damaged environment.json: in began_with, 'run' is '3'"):
        train(vary(back, seed=0), halves[0], tmp_path / "run", machine=CPU)


def test_another_network_is_refused_with_what_to_type(halves, earlier, tmp_path):
    made = recipe("general", start_from=earlier.path)
    with pytest.raises(UserError) as caught:
        train(made, halves[1], tmp_path / "run", machine=CPU)
    network = "model speednet_slim, widths 8 16 16, depth 0, members 1"
    said = f"{earlier.path} has another network: {network}; give the same, or leave that out of the command line"
    assert str(caught.value) == said
    with pytest.raises(UserError, match="has another network"):
        train(vary(earlier.recipe, start_from=str(earlier.path), depth=3), halves[1], tmp_path / "run", machine=CPU)


def test_images_of_other_channels_an_unfinished_run_and_none_are_refused(halves, earlier, tmp_path):
    made = vary(earlier.recipe, start_from=str(earlier.path))
    colour = replace(halves[1].development, images=halves[1].development.images.expand(-1, 3, -1, -1).contiguous())
    with pytest.raises(
        UserError, match="takes images of 1 channel, and those of some of tiny have 3; start from another"
    ):
        train(made, replace(halves[1], development=colour, train=colour), tmp_path / "run", machine=CPU)
    shutil.copytree(earlier.path, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "summary.json").unlink()
    with pytest.raises(UserError, match="is unfinished; continue with"):
        train(vary(made, start_from=str(tmp_path / "unfinished")), halves[1], tmp_path / "run", machine=CPU)
    with pytest.raises(UserError, match=r"the run to start from: there is no run folder .*nowhere"):
        train(vary(made, start_from="nowhere"), halves[1], tmp_path / "run", machine=CPU)
    with pytest.raises(UserError, match="has bytes that are no UTF-8; rename it first"):
        vary(made, start_from="run\udcff")


NOTE = "note: {} may have images that it was trained on (its place or names of classes are the same)"


def test_a_folder_that_has_grown_since_is_told_of(here, capsys):
    pictures(here / "pics")
    assert command_line(["train", "pics", "--out", "first", *SHORT]) == 0
    for name in ("a", "b"):
        shutil.copy(here / "pics" / name / "0.png", here / "pics" / name / "more.png")
    capsys.readouterr()
    assert command_line(["train", "pics", "--out", "second", "--start-from", "first", "--epochs", "1"]) == 0
    said = capsys.readouterr().err
    assert NOTE.format("pics") in said


def test_so_are_one_seen_by_way_of_another_and_the_same_classes_elsewhere(here, capsys):
    pictures(here / "pics")
    pictures(here / "others", classes=("c", "d"))
    assert command_line(["train", "pics", "--out", "first", *SHORT]) == 0
    assert command_line(["train", "others", "--out", "second", "--start-from", "first", "--epochs", "1"]) == 0
    assert "may have images" not in capsys.readouterr().err
    shutil.copytree(here / "pics", here / "copied")
    for folder in ("pics", "copied"):
        shutil.copy(here / "pics" / "a" / "0.png", here / folder / "a" / f"more of {folder}.png")
    assert command_line(["train", "pics", "--out", "third", "--start-from", "second", "--epochs", "1"]) == 0
    assert NOTE.format("pics") in capsys.readouterr().err
    assert command_line(["train", "copied", "--out", "fourth", "--start-from", "first", "--epochs", "1"]) == 0
    assert NOTE.format("copied") in capsys.readouterr().err


def test_a_run_whose_earlier_one_is_others_weights_now_is_not_resumed(halves, earlier, tmp_path, monkeypatch):
    shutil.copytree(earlier.path, tmp_path / "first")
    made = vary(earlier.recipe, start_from=str(tmp_path / "first"), epochs=2)

    def check(self):
        raise signals.StopRequested("SIGTERM")

    with monkeypatch.context() as patched:
        patched.setattr(signals.StopSignals, "check", check)
        with pytest.raises(Interrupted):
            train(made, halves[1], tmp_path / "run", machine=CPU)
    shutil.rmtree(tmp_path / "first")
    train(vary(earlier.recipe, epochs=0.2), halves[0], tmp_path / "first", machine=CPU)
    with pytest.raises(UserError, match=r"has other weights than when .*run began with them; begin another run"):
        train(made, halves[1], tmp_path / "run", machine=CPU)


def test_a_finished_one_is_returned_though_the_earlier_one_is_gone(halves, earlier, tmp_path):
    shutil.copytree(earlier.path, tmp_path / "first")
    made = vary(earlier.recipe, start_from=str(tmp_path / "first"), epochs=0.2)
    run = train(made, halves[1], tmp_path / "run", machine=CPU)
    shutil.rmtree(tmp_path / "first")
    assert train(made, halves[1], tmp_path / "run", machine=CPU).path == run.path


def test_the_latest_run_is_meant_as_it_was_then(here):
    pictures(here / "pics")
    pictures(here / "others", classes=("c", "d"))
    assert command_line(["train", "pics", "--out", "runs/first", *SHORT]) == 0
    assert (
        command_line(["train", "others", "--out", "runs/second", "--start-from", "runs/latest", "--epochs", "1"]) == 0
    )
    assert (here / "runs" / "latest").resolve() == here / "runs" / "second"
    second = Run.open("runs/second")
    assert second.recipe.start_from == str(here / "runs" / "first") == second.lineage[0]["run"]
    assert "start_from runs/first" in title_of(second.recipe) or "fields changed" in title_of(second.recipe)
    assert "start_from runs/first" in name_of_group(second.recipe)


def test_of_several_seeds_none_is_trained_where_one_is_refused(here, capsys):
    pictures(here / "pics")
    assert command_line(["train", "pics", "--out", "first", *SHORT]) == 0
    words = ["train", "pics", "--out", "many", "--start-from", "first", "--epochs", "1", "--seeds", "2"]
    assert command_line(words) == 2
    assert "was trained on images of pics that are held out here" in capsys.readouterr().err
    (here / "study.toml").write_text(
        'name = "begun"\ndataset = "pics"\nseeds = 2\n[fields]\nepochs = 1\nwidths = [8, 16, 16]\nbatch_size = 8\n'
        '[[variant]]\nname = "scratch"\n[[variant]]\nname = "begun"\nstart_from = "first"\n'
    )
    assert command_line(["study", "study.toml", "--out", "study"]) == 2
    assert "was trained on images of pics that are held out here" in capsys.readouterr().err
    assert not (here / "many").exists() and not (here / "study").exists()


def test_seeds_in_one_process_begin_with_it_as_well(here):
    first = ("train", "fashion-mini", "--out", "first", "--validation", "0.5", *SHORT)
    assert thumbnet(*first, cwd=here).returncode == 0
    more = ("--start-from", "first", "--validation", "0.5", "--epochs", "1", "--widths", "8", "16", "16")
    words = ("bench", "general", "--seeds", "1", "--split", "validation", "--threads", "1", "--one-process")
    result = thumbnet(*words, *more, cwd=here)
    assert result.returncode == 0, result.stderr
    assert Run.open(here / "runs" / "bench" / "general-s0").lineage[0]["run"] == str(here / "first")


# ------------------------------------------------------------------------------------- as it is typed


def test_the_command_line_takes_the_network_of_the_run(here, capsys):
    pictures(here / "pics")
    pictures(here / "others", classes=("c", "d", "e"))
    assert command_line(["train", "pics", "--out", "first", *SHORT]) == 0
    assert command_line(["train", "others", "--out", "second", "--start-from", "first", "--epochs", "1"]) == 0
    second = Run.open("second").recipe
    assert (second.name, second.model, second.widths) == ("general", "speednet_slim", (8, 16, 16))
    assert f"begins with the weights of {here}/first: general on pics" in capsys.readouterr().err
    again = thumbnet("train", "others", "--config", "second/recipe.toml", "--threads", "1", "--out", "third", cwd=here)
    assert again.returncode == 0, again.stderr
    assert Run.open("third").recipe == second
    assert command_line(["preview", "others", "--start-from", "first"]) == 0
    assert command_line(["train", "others", "--start-from", "first", "--normalize", "none"]) == 2
    assert "normalize has no effect without start_from left out" in capsys.readouterr().err
    assert command_line(["train", "others", "--pretrained", "first"]) == 2
    assert "did you mean --start-from?" in capsys.readouterr().err


def test_an_export_says_what_the_weights_began_with(halves, earlier, tmp_path):
    for needed in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(needed, reason="exporting to ONNX needs the extra `export`")
    from thumbnet.shipping.bundle.folder import export

    made = vary(earlier.recipe, start_from=str(earlier.path), **STILL)
    run = train(made, halves[1], tmp_path / "run", machine=CPU)
    export(run, tmp_path / "out", data=halves[1])
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"| began with | the weights of a run of general on {earlier.data.title} |" in text


def test_a_budget_keeps_the_network_of_the_run(here):
    pictures(here / "pics")
    pictures(here / "others", classes=("c", "d"))
    assert command_line(["train", "pics", "--out", "first", *SHORT]) == 0
    words = ("train", "others", "--out", "second", "--start-from", "first", "--time-budget", "15s", "--threads", "1")
    result = thumbnet(*words, cwd=here)  # the budget counts from the start of a process
    assert result.returncode == 0, result.stderr
    assert Run.open("second").recipe.widths == (8, 16, 16)
    assert json.loads((here / "second" / "summary.json").read_text())["epochs"] > 1
