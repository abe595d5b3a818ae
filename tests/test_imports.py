"""The architecture as rules: imports go one way, the command line starts light, randomness has a key."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "thumbnet"
FILES = sorted(SOURCE.rglob("*.py"))

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TREE = README.split("src/thumbnet/\n")[1].split("```")[0]


def order() -> list[str]:
    """Modules and packages as the README's tree has them, `runs/paths` for runs/paths.py: each may import those before it."""
    names, folder = [], ""
    for indent, name in re.findall(r"^( +)(\S+)", TREE, re.MULTILINE):
        inside = f"{folder}/" if len(indent) == 4 else ""
        names.append(inside + name.rstrip("/").removesuffix(".py"))
        folder = folder if inside else names[-1]
    return names


ORDER = order()


def place(module: str) -> int:
    """Where `runs.paths` stands in the order, or the package that it is in."""
    parts = module.split(".")
    return max(ORDER.index(name) for name in (parts[0], "/".join(parts[:2])) if name in ORDER)


def imported(tree: ast.AST) -> list[str]:
    """The modules of thumbnet that a file imports at run time: what stands under `if TYPE_CHECKING` is left out."""
    names = []
    for node in ast.iter_child_nodes(tree):
        if under_type_checking(node):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "thumbnet":
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("thumbnet.")]
        names += imported(node)
    return [name.removeprefix("thumbnet.") for name in names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    if path == SOURCE / "__init__.py":
        return  # gathers the public names of all
    mine = place(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    wrong = [name for name in imported(ast.parse(path.read_text())) if place(name) > mine]
    assert wrong == []


@pytest.mark.parametrize("package", sorted({path.parent for path in FILES} - {SOURCE}), ids=lambda path: path.name)
def test_imports_within_a_package_go_round_in_no_circle(package):
    inner = f"{'.'.join(package.relative_to(SOURCE).parts)}."
    graph = {}
    for path in package.glob("*.py"):
        names = [name for name in imported(ast.parse(path.read_text())) if name.startswith(inner)]
        graph[path.stem] = {name.removeprefix(inner).split(".")[0] for name in names}
    assert circle_in(graph) is None


def circle_in(graph):
    """Modules that import each other in turn, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]


def test_a_circle_of_imports_would_be_seen():
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def under_type_checking(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def test_models_know_nothing_of_training():
    for path in (SOURCE / "models").glob("*.py"):
        names = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        ours = {name for name in names if name and name.startswith("thumbnet")}
        assert ours <= {
            "thumbnet.kernels.winograd",
            "thumbnet.kernels.dense_matrix",
            "thumbnet.kernels.map_maximum",
            "thumbnet.kernels.pool_norm_activate",
            "thumbnet.kernels.preprocess",
            "thumbnet.kernels.tiles",
            "thumbnet.kernels.tile_convolution",
            "thumbnet.kernels.whitening",
            "thumbnet.models.convolution",
            "thumbnet.models.initial_weights",
            "thumbnet.models.normalization",
            "thumbnet.models.whitening",
            "thumbnet.errors",
            "thumbnet.own_code",
            "thumbnet.randomness",
        }, path


@pytest.mark.parametrize(
    "words", ["import thumbnet", "import thumbnet.cli.main", "import thumbnet.cli.train, thumbnet.cli.predict"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(words):
    code = f"{words}; import sys; print([name for name in ('torch', 'matplotlib', 'PIL', 'safetensors') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def calls(path: Path):
    """(name, keywords) of every call in a file, the name with its dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg for keyword in node.keywords}


DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_draw_names_its_generator_and_nothing_seeds_the_global_one(path):
    for name, keywords in calls(path):
        if name.startswith("torch.") and name.removeprefix("torch.") in DRAWS:
            assert "generator" in keywords, f"{path}: {name}"
        assert not name.startswith(("np.random.", "numpy.random.", "random.")), f"{path}: {name}"
        assert name != "torch.manual_seed" or path.name == "randomness.py", path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_that_is_read_can_run_code(path):
    names = {name for name, _ in calls(path)} - (
        {"exec"} if path == SOURCE / "own_code.py" else set()
    )  # of copies trusted by hand
    assert not names & {"torch.load", "pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "joblib.load"}
    assert "allow_pickle=True" not in path.read_text()


def test_the_loop_is_one_visible_function_and_no_function_is_long():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= (150 if node.name == "fit" else 80), (
                    f"{path}:{node.lineno} {node.name} has {lines} lines"
                )


COMPILERS = """
import sys
found = {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)
sys.exit(", ".join(sorted(found)) or None)
"""


def test_networks_are_made_without_torchs_compiler():
    """Some functions import it, for tensors without numbers: one to two seconds before every command."""
    code = """
from thumbnet.models.initial_weights import without_weights
from thumbnet.models.registry import MODELS, create_model
for name in MODELS:
    for device in ("cpu", "meta"):
        with without_weights(device):
            create_model(name, classes=2)
"""
    done = subprocess.run([sys.executable, "-c", code + COMPILERS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_training_and_opening_a_run_do_without_torchs_compiler(tmp_path):
    code = f"""
from thumbnet import evaluate, load_dataset, recipe, train
data = load_dataset("fashion-mini", validation=0.1)
run = train(recipe("general", epochs=0.02), data, {str(tmp_path / "run")!r}, plots=False)
evaluate(run)
"""
    done = subprocess.run([sys.executable, "-c", code + COMPILERS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_training_with_muon_does_not_import_torchs_compiler():
    """It takes most of a second, of the ten that a recipe has, and torch would import it with any optimiser."""
    code = """
import sys, torch
from thumbnet.models.registry import create_model
from thumbnet.training.optimize import build_optimizer
from thumbnet.recipes import recipe
model = create_model("speednet", classes=2, widths=(16, 16, 16))
optimizer = build_optimizer(model, recipe("general"))
optimizer.zero_grad(set_to_none=True)
model(torch.rand(2, 3, 16, 16)).sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
