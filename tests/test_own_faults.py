"""What is wrong in a Python file of the user's, told in a line; and what such a file prints."""

import json
import re
from dataclasses import replace

import pytest

import thumbnet
from conftest import CPU, Heard
from conftest import thumbnet as in_process
from own_files import COUNTING, NETWORK, plain, written
from thumbnet import own_code
from thumbnet.cli.main import run as command
from thumbnet.errors import UserError
from thumbnet.training.loop import train

pytestmark = pytest.mark.usefixtures("own_store")

TOLD = {
    "def network(classes, channels)\n    pass": r"mine\.py, line 1: expected ':'",
    "def net(classes): pass": r"mine\.py has no def network\(classes, channels\) at its top; it has net",
    "import absent_module\ndef network(classes, channels): pass": r"mine\.py, line 1: ModuleNotFoundError: No module named",
    "import sys\nsys.exit(3)\nnetwork = 0": r"mine\.py ends the program when it is loaded, as sys\.exit or argparse do",
    "def network(classes): pass": r"mine\.py, network: TypeError: network\(\) got an unexpected keyword argument 'channels'",
    "def network(classes, channels): return 3": r"mine\.py: network\(classes, channels\) gave int, not a torch\.nn\.Module",
    "def network(classes, channels):\n    return 1 / 0": r"mine\.py, line 2, in network: ZeroDivisionError: division by zero",
    NETWORK.replace(
        "nn.Linear(8, classes)", "nn.Linear(8, 2 * classes)"
    ): r"mine\.py gives 1 x 20 for one image; wanted are logits 1 x 10",
    NETWORK.replace(
        "nn.Linear(8, classes)", "nn.Linear(9, classes)"
    ): r"mine\.py: RuntimeError: mat1 and mat2 shapes cannot be multiplied \(1x8 and 9x10\) \(of an image 1 x 28 x 28\)",
    "from torch import nn\nclass network(nn.Module):\n    def __init__(self, **options):\n        super().__init__()\n"
    "        self.one = nn.Linear(1, 1)\n"
    "    def forward(self, x):\n        return x.view(3, -1)": r"mine\.py, line 7, in forward: RuntimeError: shape",
}


@pytest.mark.parametrize("text", TOLD, ids=lambda text: TOLD[text][:40])
def test_a_fault_in_a_network_is_told_in_a_line_before_anything_is_written(tiny, tmp_path, text):
    with pytest.raises(UserError, match=TOLD[text]) as told:
        train(plain(model=written(tmp_path, text)), tiny, tmp_path / "run", machine=CPU)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


FOUR = """
import torch
from torch import nn

class network(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x.mean((2, 3)))
"""
IN_GRADIENTS = {
    FOUR.replace("return self.last(x.", "return self.last(x.mul_(2)."): (
        r"mine\.py, line 11, in forward: what it gives is changed in place later, and gradients need it as it was; write y"
    ),
    FOUR.replace("(2, 3)))", "(2, 3))).detach()"): (
        r"mine\.py: the loss depends on no weight of the network; look for torch\.no_grad"
    ),
}


@pytest.mark.parametrize("text", IN_GRADIENTS, ids=["in place", "detached"])
def test_a_fault_that_only_gradients_show_is_told_with_the_line_it_comes_from(tiny, tmp_path, text):
    with pytest.raises(UserError, match=IN_GRADIENTS[text]) as told:
        train(plain(model=written(tmp_path, text)), tiny, tmp_path / "run", machine=CPU)
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()


def test_a_gradient_that_fails_otherwise_is_told_with_its_line(tiny, tmp_path):
    text = FOUR.replace(
        "class network",
        """class Bad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no gradient here")

class network""",
    ).replace("torch.relu(", "Bad.apply(")
    with pytest.raises(UserError, match=r"mine\.py, line 12, in backward: RuntimeError: no gradient here"):
        train(plain(model=written(tmp_path, text)), tiny, tmp_path / "run", machine=CPU)
    text = FOUR.replace("torch.relu(self.first(x))", "torch.sqrt(self.first(x)).resize_(0)")
    with pytest.raises(UserError, match=r"mine\.py, line 1\d, in forward"):
        train(plain(model=written(tmp_path, text)), tiny, tmp_path / "run", machine=CPU)


def test_layers_that_torch_does_not_see_and_functions_without_their_flag_are_told(tiny, tmp_path):
    text = FOUR.replace("        self.first, self", "        self.more = [nn.Linear(4, 4)]\n        self.first, self")
    mine = written(
        tmp_path, text.replace("x.mean((2, 3))", "self.more[0](x.mean((2, 3)))") + "\ndef loss(a, b): return a\n"
    )
    heard = Heard()
    train(plain(model=mine, epochs=0.2), tiny, tmp_path / "run", machine=CPU, reporter=heard)
    told = "\n".join(heard.lines)
    assert "note: layers in self.more of network are neither trained nor kept; make it an nn.ModuleList" in told
    assert "note: mine.py has a function loss, which is used with --loss mine.py alone" in told


def test_a_function_under_an_if_that_does_not_hold_is_told(tiny, tmp_path):
    mine = written(tmp_path, "if 1 > 2:\n    def network(classes, channels):\n        return 0\n")
    with pytest.raises(UserError, match=r"mine\.py defines no network when it is run; does it stand under an if"):
        train(plain(model=mine), tiny, tmp_path / "run", machine=CPU)
    with pytest.raises(UserError, match=r"mine\.py has no def loss"):
        plain(loss=written(tmp_path, "if __name__ == '__main__':\n    loss = 1\n"))


def test_a_network_that_wants_whole_images_is_told_of_a_recipe_that_shrinks_them(tiny, tmp_path):
    mine = written(
        tmp_path,
        NETWORK.replace("nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8", "nn.Flatten(), nn.Linear(8 * 13**2"),
    )
    with pytest.raises(
        UserError, match=r"\(of an image 1 x 14 x 14, at resolution 0\.5; --resolution 1 leaves them whole\)"
    ):
        train(plain(model=mine, resolution=(0.5, 1)), tiny, tmp_path / "run", machine=CPU)
    train(plain(model=mine, resolution=(1,), epochs=0.2), tiny, tmp_path / "run", machine=CPU)


FAULTS = [
    (
        "loss",
        "def loss(logits, targets): return (logits.min() - 9).log()",
        r"mine\.py: the first loss is nan, before any weight",
    ),
    ("loss", "def loss(logits, targets): raise MemoryError", r"MemoryError"),
    (
        "augment",
        "def augment(images, random): return (images * 255).byte()",
        r"gave uint8 \(32, 1, 28, 28\) on cpu; wanted is float32",
    ),
    (
        "model",
        NETWORK.replace("nn.Linear(8, classes)", "nn.LazyLinear(classes)"),
        r"the network has lazy layers, whose sizes are not known",
    ),
    (
        "model",
        "from torch import nn\ndef network(classes, channels): return nn.Flatten()",
        r"the network has no parameters to train; layers belong in nn\.ModuleList",
    ),
    (
        "optimizer",
        "from torch.optim import SGD\ndef optimizer(model, recipe): return SGD([{'params': model.parameters(), 'lr': None}])",
        r"NoneType|has no number as its lr",
    ),
    ("loss", "def loss(logits, targets): return (logits, targets)", r"gave tuple; wanted is one number"),
    (
        "loss",
        "def loss(logits, targets): return logits.sum(1)",
        r"gave a tensor of shape \(32,\); wanted is one number, as of",
    ),
    ("loss", "def loss(logits): return logits", r"mine\.py, loss: TypeError: loss\(\) takes 1 positional argument"),
    (
        "augment",
        "def augment(images, random): return images[:3]",
        r"gave float32 \(3, 1, 28, 28\) on cpu; wanted is float32 \(32, 1, 28, 28\)",
    ),
    ("augment", "def mix(images, targets, random): return images", r"gave Tensor; wanted are images and targets"),
    (
        "augment",
        "def mix(images, targets, random): return images, targets.argmax(1)",
        r"gave int64 \(32,\) on cpu; wanted is float32 \(32, 10\) on cpu, as it came",
    ),
    ("optimizer", "def optimizer(model, recipe): return None", r"gave NoneType, not a torch\.optim\.Optimizer"),
    (
        "optimizer",
        COUNTING.replace("steps=0,", "steps=0, kept=[1],"),
        r"keeps 'kept' as list \[1\], which a checkpoint cannot hold",
    ),
]


@pytest.mark.parametrize(("field", "text", "told"), FAULTS, ids=[row[2][:30] for row in FAULTS])
def test_a_fault_in_what_a_file_gives_is_told(tiny, tmp_path, field, text, told):
    with pytest.raises(
        MemoryError if told == "MemoryError" else UserError, match=None if told == "MemoryError" else told
    ):
        train(
            plain(**{field: written(tmp_path, text)}),
            tiny,
            tmp_path / "run",
            machine=replace(CPU, checkpoint_seconds=0),
        )
    assert not (tmp_path / "run").exists()


def test_a_fault_in_the_middle_of_training_is_told_with_its_line_and_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    odd = (
        "class Odd(nn.Module):\n    steps = 0\n    def forward(self, x):\n        Odd.steps += self.training\n"
        "        return x if Odd.steps < 5 else x @ x\n"
    )
    written(tmp_path, odd.join(["from torch import nn\n", NETWORK.replace("classes))", "classes), Odd())")]))
    options = ["--epochs", "1", "--no-report", "--device", "cpu", "--batch-size", "64"]
    assert command(["train", "fashion-mini", "--model", "mine.py", *options]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"mine\.py, line \d+, in forward: RuntimeError: mat1 and mat2", told)


WORDS = {
    "augment": (r"augment is 'noise'; give the path of a Python file", "noise"),
    "model": (r"cannot read the Python file absent\.py: No such file", "absent.py"),
    "loss": (r"unknown loss 'cross-entropy'; did you mean 'cross_entropy'\?", "cross-entropy"),
    "optimizer": (r"unknown optimizer 'adamm'; did you mean 'adam'\?", "adamm"),
}


@pytest.mark.parametrize("field", WORDS)
def test_what_is_no_file_and_no_name_is_refused(field):
    with pytest.raises(UserError, match=WORDS[field][0]):
        plain(**{field: WORDS[field][1]})


def test_what_is_no_text_or_no_program_is_refused(tmp_path):
    (tmp_path / "mine.py").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"mine\.py, line 1: \(unicode error\)"):
        plain(model=str(tmp_path / "mine.py"))
    (tmp_path / "mine.py").write_bytes(b"#" * (own_code.LARGEST + 1))
    with pytest.raises(UserError, match=r"it has more than 1,048,576 bytes"):
        thumbnet.trust(tmp_path / "mine.py")


def test_fields_that_code_of_ones_own_does_not_read_are_refused(tmp_path):
    mine = written(tmp_path, "def loss(a, b): return a.sum()\ndef optimizer(model, recipe): pass\n")
    with pytest.raises(UserError, match="label_smoothing has no effect without loss cross_entropy"):
        plain(loss=mine, label_smoothing=0.1)
    with pytest.raises(UserError, match=r"l2 0\.1 is for adam and sgd; set weight_decay instead"):
        plain(optimizer=mine, l2=0.1)
    assert plain(optimizer=mine, weight_decay=0.1, momentum=0.5, beta2=0.9).weight_decay == 0.1


def test_what_a_file_prints_leaves_stdout_to_the_command(tmp_path):
    network = NETWORK.replace("    return", "    print('a network', 1, end=';')\n    return")
    written(tmp_path, f"import sys\nprint('loaded')\nprint('asked for', file=sys.stderr)\n{network}", trusted=False)
    words = ["--model", "mine.py", "--epochs", "0.1", "--no-report", "--threads", "1", "--json"]
    done = in_process("train", "fashion-mini", *words, cwd=tmp_path)
    assert json.loads(done.stdout)["recipe"] == "plain"
    assert all(told in done.stderr for told in ("loaded", "asked for", "a network 1;"))


def test_a_function_that_is_defined_where_something_holds_is_found(tmp_path):
    text = "try:\n    import absent\nexcept ImportError:\n    if True:\n        def loss(logits, targets): return 0\n"
    assert own_code.names_in(text.encode(), "mine.py") == {"loss"}
    assert plain(loss=written(tmp_path, text)).loss.startswith("mine.py@")


def test_a_module_beside_the_file_is_not_found_and_the_reason_told(tiny, tmp_path):
    (tmp_path / "helpers.py").write_text("width = 8\n")
    with pytest.raises(UserError, match="'helpers'; what is not installed as a package must stand in the file itself"):
        train(plain(model=written(tmp_path, f"import helpers\n{NETWORK}")), tiny, tmp_path / "run", machine=CPU)
