"""The run folder: everything that went into a run and came out of it, in files that a person can read.

recipe.toml        the complete recipe; `--config recipe.toml` repeats it
changes.toml       what differs from the named recipe
code/              the Python files of the user's own that the recipe names, to be read; nothing is run from here
data.json          which data, where it lies, its classes and fingerprint
environment.json   versions, hardware, settings, the command; which earlier run's weights it began with
metrics.jsonl      one object per epoch
checkpoint/        the two newest states of training, see checkpoints.py; gone when the run is finished
model.safetensors  the final weights, the normalisation with them
summary.json       the outcome; present only when the run is finished
plots/             curves as PNG
predictions/       SPLIT.npz: what the network said of every image of a split
calibration.json   the temperature fitted on the validation images
robustness.json    accuracy on corrupted images, where that was measured
report.html        the page
evaluations.jsonl, test-openings.jsonl   what was measured later, and how often the test images were looked at
"""

import errno
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.errors import UserError, first_line
from thumbnet.files import (
    append_line,
    drop_leftovers,
    make_folder,
    sync_folder,
    write_arrays,
    write_failed,
    write_json,
    write_text,
)
from thumbnet.locks import alone_in, now
from thumbnet.machine import Machine
from thumbnet.own_code import is_own, keep_copies
from thumbnet.reading import NUMBER, Fields, read_json, read_json_lines, sha256_of, with_fields
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe import NEWER_FIELDS, Recipe
from thumbnet.recipes.recipe_file import read_recipe, recipe_table, write_recipe
from thumbnet.runs.checkpoints import Arrays, Checkpoint, load_checkpoint, save_checkpoint
from thumbnet.runs.data_record import DataRecord

if TYPE_CHECKING:
    from torch import Tensor, nn

    from thumbnet.data.datasets import Dataset
    from thumbnet.runs.predictions import Predictions


# What readers of a run's files rely on.
MAYBE = (int, float, type(None))  # null where there were no validation images
SUMMARY: Fields = {
    "run": str, "dataset": str, "recipe": str, "model": str, "classes": int, "parameters": int, "seed": int,
    "device": str, "precision": str, "epochs": NUMBER, "train_images": int, "train_accuracy": NUMBER,
    "train_loss": NUMBER, "validation_images": int, "validation_accuracy": MAYBE, "validation_top5": MAYBE,
    "validation_loss": MAYBE, "train_seconds": NUMBER, "images_per_second": NUMBER,
}  # fmt: skip
METRICS: Fields = {
    "epoch": int, "train_loss": NUMBER, "train_accuracy": NUMBER, "train_top5": NUMBER, "validation_loss": MAYBE,
    "validation_accuracy": MAYBE, "validation_top5": MAYBE, "training_seconds": NUMBER, "images_per_second": NUMBER,
}  # fmt: skip
ENVIRONMENT: Fields = {"device": str, "precision": str, "threads": int}
# Of the run that a run began with, and in it of the one before.
BEGAN_WITH: Fields = {
    "run": str, "recipe": str, "dataset": str, "model_sha256": (str, type(None)), "fingerprint": str, "location": str,
    "held_out": dict, "began_with": (dict, type(None)),
}  # fmt: skip
HELD_OUT: Fields = {"fraction": NUMBER, "seed": int, "folds": int, "fold": int}
CHANGING_BITS = ("device", "precision", "threads", "kernels", "processor", "gpu", "torch")  # of a process's environment


class Run:
    """One run folder. `Run.create` makes one, `Run.open` reads one; the files are the only state."""

    def __init__(self, path: Path, recipe: Recipe, data: Mapping[str, Any]):
        self.path = path
        self.recipe = recipe
        self.data = DataRecord(data)  # data.json

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, recipe={self.recipe.name!r}, {'finished' if self.finished else 'unfinished'})"

    # ---------------------------------------------------------------- making and opening

    @staticmethod
    def create(path: Path, recipe: Recipe, data: "Dataset", environment: dict[str, Any]) -> "Run":
        """A new folder with recipe, data and environment written down. `path` must be absent or empty."""
        if path.resolve() == Path.cwd():
            raise UserError(f"--out {path} is the folder you are in; name one to be made, such as --out run")
        folder = path.with_name(f".{path.name}.tmp-{os.getpid()}")  # complete before it gets its name
        try:
            make_folder(folder)
            write_json(folder / "data.json", DataRecord.of(data))
            write_json(folder / "environment.json", environment)
            write_recipe(recipe, folder)
            keep_copies(recipe.own_code, folder / "code")
            os.rename(folder, path)  # also onto an empty folder; fails where another run was quicker
            sync_folder(path.parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise UserError(f"another process has just begun a run in {path}; choose another --out") from error
            raise write_failed(path, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Run(path, recipe, DataRecord.of(data))

    @staticmethod
    def open(path: "str | Path") -> "Run":
        """The run in a folder written by `train`. Raises `UserError` where it is none, naming what is missing."""
        path = Path(path)
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} points at {path.readlink()}, which is gone; name another run folder")
        if path.suffix == ".onnx" and path.is_file():
            raise UserError(
                f"{path} is an exported file, for predict, serve and evaluate --on; here name its run folder"
            )
        if path.suffix == ".pt2":
            raise UserError(f"{path} is for torch, and not read here: its format can hold code; export an .onnx file")
        if not path.is_dir():
            is_below = (Path("runs") / path).is_dir()
            hint = f"did you mean runs/{path}?" if is_below else "`thumbnet train` makes one and prints its location"
            raise UserError(f"there is no run folder {path}; {hint}")
        for name in ("recipe.toml", "data.json"):
            if not (path / name).is_file():
                raise UserError(f"{path} is not a run folder: it has no {name}{what_is_there(path)}")
        return Run(path, read_recipe(path), DataRecord.read(path / "data.json"))

    # ---------------------------------------------------------------- reading

    def place(self, name: str) -> Path:
        """Where to write a file of this run. Raises `UserError` where the folder was moved or deleted meanwhile."""
        if not (self.path / "recipe.toml").is_file():
            raise UserError(f"cannot write {self.path / name}: the run folder is gone; look for it, or train again")
        return self.path / name

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """The outcome; empty while the run is unfinished."""
        path = self.path / "summary.json"
        return read_json(path, SUMMARY) if path.is_file() else {}  # type: ignore[no-any-return]

    @property
    def moved_epochs(self) -> bool:
        """Whether other epochs were made than planned first, since a time budget moved them while the run went on."""
        return bool(self.summary.get("epochs_planned", self.recipe.epochs) != self.recipe.epochs)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row per finished epoch. A last line torn by a power cut is left out."""
        return read_json_lines(self.path / "metrics.jsonl", METRICS)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """What `evaluate` measured, oldest first."""
        return read_json_lines(self.path / "evaluations.jsonl", {"time": str})

    @property
    def calibrated(self) -> bool:
        """True where a temperature was fitted."""
        return (self.path / "calibration.json").is_file()

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 for a run without validation images."""
        path = self.path / "calibration.json"
        return read_json(path, {"temperature": NUMBER})["temperature"] if path.is_file() else 1.0

    def predictions(self, split: str = "validation", views: int = 1) -> "Predictions":
        """What the run said of every image of a split. Raises `UserError` where that was not kept."""
        from thumbnet.runs.predictions import load_predictions

        path = self.predictions_path(split, views)
        if not path.is_file() and split == "validation" and not self.data.get("validation", 1):
            raise UserError(
                f"{self.path} held no images out (validation 0), so it has no predictions of validation images"
            )
        if not path.is_file():
            options = "".join([" --split test" if split == "test" else "", f" --views {views}" if views > 1 else ""])
            raise UserError(
                f"{self.path} has no predictions of its {split} images; make them with: "
                f"thumbnet evaluate {shlex.quote(str(self.path))}{options}"
            )
        return load_predictions(path)

    def predictions_path(self, split: str, views: int) -> Path:
        """Where predictions lie: predictions/test.npz, or test-6-views.npz."""
        return self.path / "predictions" / f"{split}{f'-{views}-views' if views > 1 else ''}.npz"

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware and settings of the process that began the run."""
        return read_json(self.path / "environment.json", ENVIRONMENT)  # type: ignore[no-any-return]

    @property
    def lineage(self) -> "list[dict[str, Any]]":
        """What was kept of the run whose weights this one began with, of the one that began with, and so on; often nothing.

        Raises `UserError` where that is damaged.
        """
        found, told = [], self.environment.get("began_with")
        while told:
            try:
                found.append(with_fields(told, BEGAN_WITH))
                with_fields(told["held_out"], HELD_OUT)
            except ValueError as error:
                raise UserError(f"{self.path} has a damaged environment.json: in began_with, {error}") from error
            told = told["began_with"]
        return found

    @property
    def cut(self) -> dict[str, Any]:
        """How images were held out, and which were left out, as `Dataset.with_validation` takes it."""
        return self.recipe.cut | self.data.cut

    @property
    def held_out(self) -> dict[str, Any]:
        """How images were held out, whichever of the others were left out."""
        return {name: value for name, value in self.cut.items() if name != "leave_out"}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    def require_finished(self) -> None:
        """Raise `UserError` unless the final weights are there."""
        if not self.finished:
            raise UserError(f"the run {self.path} is unfinished; continue with: {self.resume_command}")

    @property
    def resume_command(self) -> str:
        """What to type to continue an interrupted run."""
        return f"thumbnet train {shlex.quote(self.data.as_typed)} --out {shlex.quote(str(self.path))} --resume"

    def machine_to_resume(self, asked: Machine) -> Machine:
        """The run's own device, precision and threads where nothing else is asked for: they change the last bits."""
        before = self.environment
        return replace(
            asked,
            device=before["device"].split(":")[0] if asked.device == "auto" else asked.device,
            precision=before["precision"] if asked.precision == "auto" else asked.precision,
            threads=before["threads"] if asked.threads is None else asked.threads,
        )

    def machine_to_measure(self, asked: Machine) -> Machine:
        """fp32 for a run trained in fp32, unless something else is asked for, so that it is measured as it was trained."""
        trained_in_fp32 = self.environment["precision"] == "fp32"
        return replace(asked, precision="fp32") if trained_in_fp32 and asked.precision == "auto" else asked

    def model(self) -> "nn.Module":
        """The trained network with its normalisation: float B C H W in [0, 1] in, logits B K out; in evaluation mode."""
        from safetensors.torch import load

        from thumbnet.models.initial_weights import without_weights

        self.require_finished()
        path = self.path / "model.safetensors"
        if not path.is_file():
            raise UserError(f"{self.path} has lost its model.safetensors; train again")
        written = path.read_bytes()  # once: what is checked is what is used, whatever happens to the file
        if self.summary.get("model_sha256", digest := hashlib.sha256(written).hexdigest()) != digest:
            raise UserError(f"{path} is not what training wrote (SHA-256 {digest}); train again")
        with (
            nullcontext() if is_own(self.recipe.model) else without_weights("meta")
        ):  # of what may keep more than weights
            model = build_model(self.recipe, channels=self.data["channels"], classes=len(self.classes))
        try:
            model.load_state_dict(load(written), assign=True)
        except Exception as error:
            raise UserError(f"{path} does not fit its recipe: {first_line(error)}") from error
        return model.eval()

    def load_data(self, *, data_dir: str | Path | None = None, **options: Any) -> "Dataset":
        """The data the run was trained on, found again where it lay, or in `data_dir`, cut as the recipe says.

        `options` are those of `load_dataset`; where they are not given, image size and the like are the run's.
        """
        return self.data.find(data_dir, whose=self.path, **options).with_validation(**self.cut)

    def check_data(self, data: "Dataset", *, split: str = "validation") -> "Dataset":
        """`data` cut as this run's recipe says, if its classes and training images are the run's, to be measured on `split`."""
        self.data.check(data, whose=self.path, split=split)
        return data.with_validation(**self.cut)

    # ---------------------------------------------------------------- writing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder while writing; raises `UserError` if another process does."""
        with alone_in(self.path, "training"):
            for folder in (self.path, self.path / "plots", self.path / "predictions"):
                drop_leftovers(folder)
            yield

    def note_process(self, environment: dict[str, Any]) -> str:
        """Add to environment.json in what this process differs from the one before; in words, or "" where in nothing.

        Only what changes the last bits counts.
        """
        first = self.environment
        before = {key: first.get(key) for key in CHANGING_BITS}
        for changed in first.get("continued_with", []):
            before |= changed
        changed = {key: environment.get(key) for key in CHANGING_BITS if before[key] != environment.get(key)}
        if changed:
            rows = [*first.get("continued_with", []), changed]
            write_json(self.place("environment.json"), first | {"continued_with": rows})
        return ", ".join(f"{key} {value or 'none'} (before: {before[key] or 'none'})" for key, value in changed.items())

    def keep_recipe(self) -> None:
        """Write the recipe down once more, whose epochs may be others now than those planned."""
        self.place("recipe.toml")
        write_recipe(self.recipe, self.path)

    def log_epoch(self, row: dict[str, Any]) -> None:
        """Add one epoch to metrics.jsonl."""
        append_line(self.place("metrics.jsonl"), json.dumps(row, allow_nan=False))

    def save_model(self, model: "nn.Module") -> None:
        """Write the final weights."""
        write_arrays(
            self.place("model.safetensors"), arrays_of(model.state_dict()), {"classes": json.dumps(self.classes)}
        )

    def save_predictions(self, predictions: "Predictions") -> None:
        """Keep what was said of a split."""
        self.place("predictions")
        predictions.save(self.predictions_path(predictions.split, predictions.views))

    def save_calibration(self, measured: dict[str, Any]) -> None:
        """Keep the temperature, and what it was fitted on."""
        write_json(self.place("calibration.json"), measured)

    def save_robustness(self, measured: dict[str, Any]) -> None:
        """Keep what was measured on corrupted images."""
        write_json(self.place("robustness.json"), measured)

    @property
    def robustness(self) -> dict[str, Any] | None:
        """What was measured on corrupted images, or None."""
        path = self.path / "robustness.json"
        return read_json(path, {}) if path.is_file() else None

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, which declares the run finished, then drop the checkpoint."""
        place = self.place("summary.json")
        weights = {"model_sha256": sha256_of(self.path / "model.safetensors")}
        write_json(place, summary | weights)
        shutil.rmtree(self.path / "checkpoint", ignore_errors=True)

    def record_evaluation(self, measured: dict[str, Any]) -> None:
        """Add what was measured to evaluations.jsonl."""
        append_line(self.place("evaluations.jsonl"), json.dumps({"time": now(), **measured}, allow_nan=False))

    @property
    def test_openings(self) -> int:
        """How often the test images were opened for this run."""
        path = self.path / "test-openings.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    def count_test_opening(self, data: "Dataset", images: int | None = None) -> None:
        """Leave a line before the test images, or so many of them, are looked at."""
        there = len(data.test or ())
        row = {"time": now(), "images": min(there, images or there), "fingerprint": data.fingerprint}
        append_line(self.place("test-openings.jsonl"), json.dumps(row))

    # ---------------------------------------------------------------- checkpoints

    def save_checkpoint(self, tensors: Mapping[str, "Tensor"], position: dict[str, Any]) -> None:
        """Store the state of training, so that whatever happens meanwhile, it or the one before can be loaded."""
        save_checkpoint(self.place("checkpoint"), arrays_of(tensors), position, self.identity)

    def load_checkpoint(self, check: Callable[[Arrays], None]) -> Checkpoint | None:
        """The newest state that is intact, this run's own and passes `check`; metrics written after it are taken back."""
        checkpoint = load_checkpoint(self.path / "checkpoint", self.identity, check)
        self.keep_metrics(checkpoint.position["epoch"] if checkpoint else 0)
        return checkpoint

    @property
    def identity(self) -> str:
        """16 hex digits of what a state of training depends on: data, classes, and recipe but for the epochs, which it tells.

        A field that is as it was before there was a choice does not count, so that older runs can be resumed.
        """
        table = {**recipe_table(self.recipe), "epochs": None}
        recipe = {name: value for name, value in table.items() if NEWER_FIELDS.get(name, ...) != value}
        told = [recipe, self.data["fingerprint"], self.data["classes"]]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def keep_metrics(self, epochs: int) -> None:
        """Drop the rows of epochs that a resumed run will train again."""
        rows = self.metrics
        kept = [row for row in rows if row["epoch"] <= epochs]
        if (self.path / "metrics.jsonl").is_file():
            write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def what_is_there(path: Path) -> str:
    """What is in the folder instead: the newest finished run below it, or an exported file."""
    below = [file for depth in ("*", "*/*", "*/*/*") for file in path.glob(f"{depth}/summary.json")]
    if below:
        return f"; there is {max(below, key=lambda file: file.stat().st_mtime).parent}"
    if (path / "recipe.toml").exists():
        return ""
    if exported := next(path.glob("*.onnx"), None):
        users = "predict, serve or evaluate --on"
        return f"; it holds {exported}: name that to {users}, and else the run folder that it was made from"
    lost = next(path.glob("*.onnx.receipt.json"), None)
    return (
        f"; {lost.name.removesuffix('.receipt.json')} was exported to it and is missing: export again" if lost else ""
    )


def arrays_of(tensors: Mapping[str, "Tensor"]) -> Arrays:
    """Tensors of any device as numpy's arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
