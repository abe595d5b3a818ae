"""Networks, optimisers, losses and augmentations from a Python file of the user's: trained like ours, run only if trusted."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import thumbnet
from conftest import CPU, Heard, assert_identical
from conftest import thumbnet as in_process
from own_files import COUNTING, NETWORK, plain, written
from test_resuming import OFTEN, stop_at
from thumbnet import own_code
from thumbnet.cli.main import run as command
from thumbnet.errors import Interrupted, UserError
from thumbnet.measuring.campaign import run_campaign
from thumbnet.recipes import names_of_groups, recipe, vary
from thumbnet.recipes.recipe import value_in, with_values
from thumbnet.report import write_run_report
from thumbnet.report.sections import reproduce
from thumbnet.runs.run import Run
from thumbnet.shipping.bundle.folder import export
from thumbnet.studies.study_file import read_study
from thumbnet.studies.sweep_file import read_sweep
from thumbnet.training.loop import train

PAGE = Path(__file__).parents[1] / "docs" / "own-code.md"
EXAMPLE, USE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)

pytestmark = pytest.mark.usefixtures("own_store")

DRAWING = """
import torch

def augment(images, random):
    return (images + 0.1 * torch.rand(images.shape, generator=random)).clamp(0, 1)

def mix(images, targets, random):
    share = torch.rand((), generator=random)
    return torch.lerp(images, images.flip(0), share), torch.lerp(targets, targets.flip(0), share)
"""


def test_a_network_from_a_file_is_trained_judged_and_exported_like_any_other(tiny, tmp_path):
    mine = written(tmp_path, NETWORK)
    run = train(plain(model=mine), tiny, tmp_path / "run", machine=CPU)
    assert re.fullmatch(r"mine\.py@[0-9a-f]{32}", run.recipe.model)
    assert (tmp_path / "run" / "code" / "mine.py").read_text() == NETWORK
    assert thumbnet.evaluate(run, data=tiny).images == run.data["validation"]
    assert reproduce(run)[0].endswith(f" --trust {tmp_path / 'run' / 'code' / 'mine.py'}")
    assert export(run, tmp_path / "model.onnx", data=tiny).largest_difference < 1e-5
    images = tiny.development.images[:5, 0].numpy()
    of_file = thumbnet.load(tmp_path / "model.onnx").predict_proba(images)
    assert np.allclose(of_file, thumbnet.load(run).predict_proba(images), atol=1e-5)


def test_the_file_is_what_is_trained(tiny, tmp_path):
    weights = [
        train(plain(model=written(tmp_path, NETWORK.replace("8", width))), tiny, tmp_path / width, machine=CPU)
        .model()
        .state_dict()["network.0.weight"]
        for width in ("8", "5")
    ]
    assert [len(weight) for weight in weights] == [8, 5]


@pytest.mark.parametrize("stops", [[4], [7], [8, 3]], ids=str)
def test_a_run_with_code_of_ones_own_stopped_and_resumed_ends_with_the_same_bits(tiny, tmp_path, monkeypatch, stops):
    mine = written(tmp_path, NETWORK + COUNTING + DRAWING)
    chosen = plain(model=mine, optimizer=mine, augment=mine, learning_rate=0.1)
    whole = train(chosen, tiny, tmp_path / "whole", machine=CPU)
    for call in stops:
        with monkeypatch.context() as patched:
            stop_at(patched, call)
            with pytest.raises(Interrupted):
                train(chosen, tiny, tmp_path / "run", machine=OFTEN)
    assert_identical(train(chosen, tiny, tmp_path / "run", machine=CPU), whole)


@pytest.mark.parametrize("left_out", [("augment",), ("mix",), ("augment", "mix")], ids=" and ".join)
def test_what_a_file_does_to_a_batch_is_done(tiny, tmp_path, left_out):
    """Without one function, or both, the network ends elsewhere."""
    parts = dict(zip(("augment", "mix"), DRAWING.split("def ")[1:], strict=True))
    kept = "import torch\n\n" + "".join(f"def {parts[name]}" for name in parts if name not in left_out)
    mine, less = written(tmp_path, DRAWING), written(tmp_path, kept, "less.py")
    recipes = [plain(augment=mine), plain(augment=less) if len(left_out) < 2 else plain()]
    one, other = (
        train(vary(each, epochs=1), tiny, tmp_path / str(i), machine=CPU).metrics[0] for i, each in enumerate(recipes)
    )
    assert one["train_loss"] != other["train_loss"]


def test_a_loss_from_a_file_is_what_is_minimised(tiny, tmp_path):
    """Twice the cross-entropy doubles the loss of the first step's batch; a loss of nothing leaves the weights as they were."""
    twice = written(
        tmp_path, "from torch.nn.functional import cross_entropy\ndef loss(a, b): return 2 * cross_entropy(a, b)\n"
    )
    nothing = written(tmp_path, "def loss(logits, targets): return 0 * logits.sum()\n", "nothing.py")
    one_step = plain(epochs=0.16, l2=0)
    plainly, doubled = (
        train(vary(one_step, loss=x), tiny, tmp_path / f"{i}", machine=CPU)
        for i, x in enumerate(("cross_entropy", twice))
    )
    assert doubled.metrics[0]["train_loss"] == pytest.approx(2 * plainly.metrics[0]["train_loss"], rel=1e-6)
    rates = [
        train(vary(one_step, loss=nothing, epochs=epochs), tiny, tmp_path / f"e{epochs}", machine=CPU)
        for epochs in (0.16, 1)
    ]
    first, later = (run.model().state_dict()["network.head.weight"] for run in rates)
    assert torch.equal(first, later)


def test_parameters_of_functions_get_the_values_of_the_recipe(tiny, tmp_path):
    text = NETWORK.replace("channels):", "channels, width=8):").replace("8", "width").replace("width=width", "width=8")
    mine = written(
        tmp_path, f"{text}\ndef loss(logits, targets, scale, name='a'): return 0 * logits.sum() + scale * len(name)\n"
    )
    run = train(
        plain(model=mine, loss=mine, own=("width=5", "scale=1.5", "name=four")), tiny, tmp_path / "run", machine=CPU
    )
    assert len(run.model().state_dict()["network.0.weight"]) == 5
    assert run.metrics[0]["train_loss"] == 6
    assert "own name=four scale=1.5 width=5" in names_of_groups([run.recipe])[0]


def test_images_come_in_the_order_that_torch_has_them_in_by_default(tiny, tmp_path):
    """Channels last, as our own networks have them, a view of several axes as one is no view."""
    text = NETWORK + (
        "class Flat(nn.Module):\n    def forward(self, x):\n        return x.view(len(x), -1)\n"
        "def network(classes, channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 4, 5), nn.MaxPool2d(2), Flat(), nn.Linear(4 * 12 * 12, classes))\n"
    )
    run = train(plain(model=written(tmp_path, text), epochs=0.5), tiny, tmp_path / "run", machine=CPU)
    with pytest.raises(
        UserError, match=r"cannot be written as a graph: it fixes the number of images, as len\(x\) does"
    ):
        export(run, tmp_path / "model.onnx", data=tiny)
    run = train(
        plain(model=written(tmp_path, text.replace("len(x)", "x.size(0)"))), tiny, tmp_path / "other", machine=CPU
    )
    assert export(run, tmp_path / "model.onnx", data=tiny).largest_difference < 1e-5
    assert not list(tmp_path.glob(".*"))


def test_values_may_be_given_as_a_mapping():
    mine = f"mine.py@{'0' * 32}"
    named = plain(loss=mine, own={"gamma": 2.5, "name": "a"})
    assert named == plain(loss=mine, own=("gamma=2.5", "name=a"))
    assert own_code.values_of(named.own) == {"gamma": 2.5, "name": "a"}
    assert own_code.values_of(plain(loss=mine, own={"sharp": False, "on": True}).own) == {"sharp": False, "on": True}
    assert plain(loss=mine, own=("b=1", "a=2")) == plain(loss=mine, own=("a=2", "b=1"))
    with pytest.raises(UserError, match=r"own gamma is \[1\]; give a number, a text, true or false"):
        plain(loss=mine, own={"gamma": [1]})
    assert value_in(named, "own.gamma") == 2.5 and value_in(named, "own.delta") is None
    assert with_values(named, {"own.gamma": 3, "epochs": 1}).own == ("gamma=3", "name=a")


def test_a_sweep_searches_values_of_functions(tmp_path, monkeypatch, capfd):
    monkeypatch.undo()  # the children look into the real store, which is a folder of this session's
    monkeypatch.chdir(tmp_path)
    loss = f"from torch.nn.functional import cross_entropy\n# {tmp_path}\n"
    written(tmp_path, loss + "def loss(a, b, scale=1.0): return scale * cross_entropy(a, b)\n", trusted=False)
    (tmp_path / "s.toml").write_text(
        'dataset = "fashion-mini"\nrecipe = "plain"\ntrials = 2\nseeds = 1\n[fields]\nepochs = 0.1\nloss = "mine.py"\n'
        "own.scale = 2.0\n[search]\nown.scale = { low = 0.5, high = 8.0, log = true }\n"
    )
    asked = ["sweep", "s.toml", "--threads", "1", "--json"]
    assert command(asked) == 2
    assert not (tmp_path / "sweeps").exists() or not list(tmp_path.glob("sweeps/s/cells/*"))
    assert "is a program that was not run here before" in capfd.readouterr().err
    assert command([*asked, "--trust", "mine.py"]) == 0
    capfd.readouterr()
    rows = json.loads((tmp_path / "sweeps" / "s" / "sweep.json").read_text())
    first, second = rows["trials"]
    assert first["changes"] == {"own.scale": 2.0}  # as it is
    assert 0.5 <= second["changes"]["own.scale"] <= 8 and second["changes"] != first["changes"]
    kept = Run.open(tmp_path / "sweeps" / "s" / "cells" / "trial-1-s0").recipe
    assert kept.own == (f"scale={second['changes']['own.scale']}",)


@pytest.mark.parametrize(("given", "told"), [
    ("[1, true]", "own.scale is True; give a number or a text"),
    ("{ low = 2, high = 1 }", "own.scale goes from 2 to 1; give a low that is below high"),
    ("3", "own.scale is 3; give a list of two values or more, or low and high"),
])  # fmt: skip
def test_what_a_sweep_cannot_search_among_values_is_told(tmp_path, given, told):
    (tmp_path / "s.toml").write_text(f'dataset = "fashion-mini"\nrecipe = "plain"\n[search]\nown.scale = {given}\n')
    with pytest.raises(UserError, match=re.escape(told)):
        read_sweep(tmp_path / "s.toml")


def test_a_sweep_of_values_that_nothing_takes_is_refused(tmp_path):
    (tmp_path / "s.toml").write_text('dataset = "fashion-mini"\nrecipe = "plain"\n[search]\nown.scale = [1, 2]\n')
    with pytest.raises(UserError, match="own has no effect without a Python file of yours"):
        read_sweep(tmp_path / "s.toml")


def test_a_run_begins_with_a_network_of_ones_own_and_its_values(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = NETWORK.replace("channels):", "channels, width=8):").replace("8", "width").replace("width=width", "width=8")
    written(tmp_path, f"{text}\ndef loss(a, b, scale=1): return scale * nn.functional.cross_entropy(a, b)\n")
    first = ["--model", "mine.py", "--loss", "mine.py", "--own", "width=5", "scale=2"]
    for words in ([*first, "--out", "first"], ["--start-from", "first", "--out", "second"]):
        assert command(["train", "fashion-mini", *words, "--epochs", "0.1", "--no-report"]) == 0, (
            capsys.readouterr().err
        )
    assert Run.open("second").recipe.own == ("width=5",)


def test_a_time_budget_chooses_the_epochs_of_another_network(tmp_path):
    written(tmp_path, NETWORK, trusted=False)
    asked = ["--model", "mine.py", "--time-budget", "10s", "--device", "cpu", "--threads", 1, "--no-report", "--json"]
    summary = json.loads(in_process("train", "fashion-mini", *asked, cwd=tmp_path).stdout)
    assert (summary["recipe"], summary["model"][:8]) == ("plain", "mine.py@")
    assert summary["epochs"] != recipe("plain").epochs


def test_a_study_adds_values_of_a_variant_to_those_of_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "def loss(a, b, scale=1, power=1): return a.sum()\n")
    (tmp_path / "s.toml").write_text(
        'recipe = "plain"\n[fields]\nloss = "mine.py"\nown = { scale = 8, power = 2 }\n'
        '[[variant]]\nname = "as it is"\n[[variant]]\nname = "power"\nown.power = 3\n'
    )
    assert [variant.recipe.own for variant in read_study(tmp_path / "s.toml").variants] == [
        ("power=2", "scale=8"),
        ("power=3", "scale=8"),
    ]


def test_a_study_without_a_recipe_takes_the_one_that_train_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, NETWORK)
    (tmp_path / "s.toml").write_text('[[variant]]\nname = "mine"\nmodel = "mine.py"\n[[variant]]\nname = "ours"\n')
    assert [variant.recipe.name for variant in read_study(tmp_path / "s.toml").variants] == ["plain", "general"]
    (tmp_path / "s.toml").write_text('[fields]\nmodel = "mine.py"\n[search]\ncrop = [0, 1]\n')
    assert read_sweep(tmp_path / "s.toml").recipe.name == "plain"


def test_the_rate_that_is_told_is_the_optimizers_own(tiny, tmp_path):
    text = "import torch\ndef optimizer(model, recipe): return torch.optim.SGD(model.parameters(), lr=0.003)\n"
    chosen = plain(optimizer=written(tmp_path, text), schedule="constant", epochs=1)
    assert train(chosen, tiny, tmp_path / "run", machine=CPU).metrics[0]["learning_rate"] == 0.003


def test_one_rate_of_dropout_is_a_number(tmp_path):
    text = NETWORK.replace("channels):", "channels, dropout=0.0):").replace(
        "nn.GELU()", "nn.GELU(), nn.Dropout(dropout)"
    )
    network = thumbnet.create_model(plain(model=written(tmp_path, text)).model, classes=3, dropout=(0.25,))
    assert network[3].p == 0.25


ODDITIES = {
    "augmented images go from 0 to 255; as they are stored": {
        "augment": "def augment(images, random): return images * 255"
    },
    "what the network gives are probabilities, which sum to 1": {
        "model": NETWORK.replace("nn.Linear(8, classes)", "nn.Linear(8, classes), nn.Softmax(1)")
    },
    "1 parameter of the network took no part in the step: 0.spare": {
        "model": NETWORK + "inner = network\ndef network(classes, channels):\n    made = inner(classes, channels)\n"
        "    made[0].spare = nn.Parameter(made[0].weight.detach().clone())\n    return made\n"
    },
}


@pytest.mark.parametrize("told", ODDITIES)
def test_what_is_probably_not_meant_is_told(tiny, tmp_path, told):
    heard = Heard()
    files = {field: written(tmp_path, text) for field, text in ODDITIES[told].items()}
    train(plain(**files, epochs=0.2), tiny, tmp_path / "run", machine=CPU, reporter=heard)
    assert [line for line in heard.lines if told in line]
    heard.lines.clear()
    train(plain(model=written(tmp_path, NETWORK), epochs=0.2), tiny, tmp_path / "other", machine=CPU, reporter=heard)
    assert not [line for line in heard.lines if line.startswith("note")]


OWN_VALUES = {
    ("depth=2",): r"own depth=2: give it by --depth, a field of recipes",
    ("gamma",): r"own is 'gamma'; give NAME=VALUE, as in gamma=2.5",
    ("2=3",): r"own is '2=3'; give NAME=VALUE",
    ("a=1", "a=2"): r"own gives a twice; leave one out",
    ("classes=3",): r"own classes=3: thumbnet gives classes itself; call the parameter something else",
    ("beta=1",): r"own beta is no parameter of a function of mine\.py; these have gamma",
}


@pytest.mark.parametrize("own", OWN_VALUES)
def test_a_value_that_nothing_takes_is_refused(tiny, tmp_path, own):
    mine = written(tmp_path, "def loss(logits, targets, gamma=1): return logits.sum()\n")
    with pytest.raises(UserError, match=OWN_VALUES[own]):
        train(plain(loss=mine, own=own), tiny, tmp_path / "run", machine=CPU)
    with pytest.raises(UserError, match="own has no effect without a Python file of yours"):
        plain(own=("gamma=1",))


KEEPING = """
import torch

class optimizer(torch.optim.SGD):
    def __init__(self, model, recipe):
        super().__init__(model.parameters(), lr=recipe.learning_rate)
        BEGIN
    def step(self):
        STEP
        super().step()
"""
SLOWER = "; [p.grad.mul_(float(k)) for p in self.param_groups[0]['params']]"
KEPT = {  # what is kept: how it begins, what a step does
    "a tensor of a group": (
        "self.param_groups[0]['k'] = torch.ones(())",
        "k = self.param_groups[0]['k'].add_(1)",
        True,
    ),
    "a number of a group": (
        "self.param_groups[0]['k'] = 1",
        "self.param_groups[0]['k'] += 1; k = self.param_groups[0]['k']",
        True,
    ),
    "an attribute": ("self.k = 1", "self.k += 1; k = self.k", False),
    "a list of a group": (
        "self.param_groups[0]['k'] = [1]",
        "k = self.param_groups[0]['k'][0] = self.param_groups[0]['k'][0] + 1",
        False,
    ),
    "a key that is no parameter": ("pass", "k = self.state['k'] = self.state.get('k', 1) + 1", False),
    "a variable of the file": ("pass", "global K; K = globals().get('K', 1) + 1; k = K", False),
}


@pytest.mark.parametrize("what", KEPT)
def test_it_is_told_where_a_resumed_run_would_be_another_and_only_there(tiny, tmp_path, monkeypatch, what):
    begin, step, is_kept = KEPT[what]
    mine = written(tmp_path, KEEPING.replace("BEGIN", begin).replace("STEP", step + SLOWER))
    heard, chosen = Heard(), plain(optimizer=mine, learning_rate=0.01, epochs=1)
    whole = train(chosen, tiny, tmp_path / "whole", machine=CPU, reporter=heard)
    told = [
        line for line in heard.lines if "stopped and resumed, this run would end in other bits: mine.py keeps" in line
    ]
    assert bool(told) != is_kept
    stop_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(chosen, tiny, tmp_path / "run", machine=OFTEN)
    own_code.run_anew()  # another process
    resumed = train(chosen, tiny, tmp_path / "run", machine=CPU)
    same = [
        torch.equal(a, b)
        for a, b in zip(resumed.model().state_dict().values(), whole.model().state_dict().values(), strict=True)
    ]
    assert all(same) == is_kept


def test_every_step_has_draws_of_its_own_and_a_resumed_run_those_of_an_unbroken_one(tiny, tmp_path, monkeypatch):
    """Also where a function draws from torch's own generator."""
    seen = tmp_path / "seen"
    text = (
        "import torch\ndef augment(images, random):\n    pair = torch.rand(()), torch.rand((), generator=random)\n"
        "    with open(PLACE, 'a') as file:\n        file.write(f'{pair[0].item()} {pair[1].item()}\\n')\n    return images\n"
    )
    chosen = plain(augment=written(tmp_path, text.replace("PLACE", repr(str(seen)))), epochs=1)
    train(chosen, tiny, tmp_path / "whole", machine=CPU)
    drawn = [line.split() for line in seen.read_text().splitlines()][3:]  # after three of the rehearsal
    assert len(drawn) == 6
    assert len({row[0] for row in drawn}) == len({row[1] for row in drawn}) == 6
    seen.unlink()
    with monkeypatch.context() as patched:
        stop_at(patched, 4)
        with pytest.raises(Interrupted):
            train(chosen, tiny, tmp_path / "run", machine=OFTEN)
    train(chosen, tiny, tmp_path / "run", machine=CPU)
    assert [line.split() for line in seen.read_text().splitlines()][3:] == drawn


def test_a_mix_of_ones_own_is_given_the_shares_of_mixed_images(tiny, tmp_path):
    seen = tmp_path / "seen"
    text = "def mix(images, targets, random):\n    with open(PLACE, 'a') as file:\n        file.write(f'{targets.max()}\\n')\n"
    text += "    return images, targets\n"
    mine = written(tmp_path, text.replace("PLACE", repr(str(seen))))
    train(plain(augment=mine, mixup=1.0, epochs=0.5), tiny, tmp_path / "run", machine=CPU)
    largest = [float(line) for line in seen.read_text().splitlines()]
    assert min(largest) < 0.9999


def test_what_a_network_keeps_beside_weights_is_there_when_a_run_is_opened(tiny, tmp_path):
    text = NETWORK + (
        "import torch\nclass Scaled(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = torch.full((), 3.0)\n    def forward(self, x):\n        return x * self.scale\n"
        "inner = network\ndef network(classes, channels):\n    return nn.Sequential(inner(classes, channels), Scaled())\n"
    )
    run = train(plain(model=written(tmp_path, text), epochs=0.5), tiny, tmp_path / "run", machine=CPU)
    logits = run.model()(tiny.development.images[:4].float() / 255)
    assert logits.isfinite().all() and run.model().network[1].scale == 3


def test_campaigns_in_one_process_begin_each_run_anew(tmp_path, monkeypatch):
    """NAdam begins with a product of ones, which zeros in the place of a used optimiser's tensors would not be."""
    monkeypatch.chdir(tmp_path)
    nadam = "import torch\ndef optimizer(model, recipe): return torch.optim.NAdam(model.parameters(), lr=0.002)\n"
    changes = {"optimizer": written(tmp_path, nadam), "epochs": 0.2, "batch_size": 64}
    options = {"changes": changes, "split": "validation", "machine": CPU}
    run_campaign("plain", "fashion-mini", [1, 2], folder=tmp_path / "both", one_process=True, **options)
    second = Run.open(tmp_path / "both" / "plain-s2")
    alone = train(second.recipe, "fashion-mini", tmp_path / "alone", machine=CPU)
    assert second.metrics[0]["train_loss"] == alone.metrics[0]["train_loss"]


class TestVersions:
    """A recipe names the text."""

    def test_an_edited_file_is_another_recipe(self, tiny, tmp_path):
        mine = written(tmp_path, NETWORK)
        first = plain(model=mine)
        written(tmp_path, NETWORK.replace("GELU", "ReLU"))
        second = plain(model=mine)
        assert first != second
        one, other = names_of_groups([first, second])
        assert one != other
        assert re.fullmatch(r"plain, .*model mine\.py@[0-9a-f]{8}.*", one)
        assert names_of_groups([first, vary(first, seed=1)])[0].count("@") == 0
        train(first, tiny, tmp_path / "run", machine=CPU)
        with pytest.raises(UserError, match=r"the recipe differs from that of .*: model 'mine\.py@"):
            train(second, tiny, tmp_path / "run", machine=CPU)

    def test_the_same_text_in_another_place_is_the_same_recipe(self, tmp_path):
        (tmp_path / "other").mkdir()
        assert plain(model=written(tmp_path, NETWORK)) == plain(model=written(tmp_path / "other", NETWORK))

    def test_a_named_model_takes_its_widths_again(self, tmp_path):
        of_speednet = recipe("general", widths=(8, 16, 16))
        mine = vary(of_speednet, model=written(tmp_path, NETWORK))
        assert (mine.widths, mine.depth) == ((), 0)


def test_a_study_compares_code_of_ones_own(tmp_path, monkeypatch, capfd):
    monkeypatch.undo()  # the children look into the real store, which is a folder of this session's
    monkeypatch.chdir(tmp_path)
    written(tmp_path, f"{NETWORK}# {tmp_path}\n", trusted=False)
    (tmp_path / "small.toml").write_text(
        'dataset = "fashion-mini"\nrecipe = "plain"\nseeds = 1\n[fields]\nepochs = 0.1\n'
        '[[variant]]\nname = "as it is"\nmodel = "resnet20"\n[[variant]]\nname = "mine"\nmodel = "mine.py"\n'
    )
    assert command(["study", "small.toml", "--threads", "1"]) == 2
    assert "is a program that was not run here before" in capfd.readouterr().err
    assert command(["study", "small.toml", "--threads", "1", "--trust", "mine.py"]) == 0
    assert Run.open(next(tmp_path.glob("**/cells/mine-s0"))).recipe.network == "mine.py"


def test_the_report_shows_the_files_that_the_run_was_made_with(tiny, tmp_path):
    mine, folder = written(tmp_path, f"{NETWORK}# <b>bold</b>\n"), tmp_path / "run"
    run = train(plain(model=mine, epochs=0.2), tiny, folder, machine=CPU)
    page = write_run_report(run).read_text(encoding="utf-8")
    assert "<summary>code/mine.py</summary>" in page and "# &lt;b&gt;bold&lt;/b&gt;" in page
    (folder / "code" / "mine.py").write_text("another")
    assert "<summary>" not in write_run_report(run).read_text(encoding="utf-8")
    assert "--trust" not in reproduce(run)[0]


def test_the_example_of_the_page_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(EXAMPLE)
    exec(USE, {})
    mine = {name: "mine.py" for name in ("model", "optimizer", "loss", "augment")}
    run = train(recipe("plain", epochs=1, learning_rate=2e-3, **mine), "fashion-mini", tmp_path / "all", machine=CPU)
    assert run.summary["validation_accuracy"] > 0.3
