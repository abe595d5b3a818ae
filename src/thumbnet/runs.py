"""The run folder: everything that went into a run and came out of it, in files that a person can read.

recipe.toml        the complete recipe; `--config recipe.toml` repeats it
changes.toml       what differs from the named recipe
data.json          which data, where it lies, its classes and fingerprint
environment.json   versions, hardware, settings, the command
metrics.jsonl      one object per epoch
checkpoint/        state.<epoch>-<step>.safetensors and manifest.json, whose replacement makes the new state valid;
                   gone when the run is finished
model.safetensors  the final weights, the normalisation with them
summary.json       the outcome; present only when the run is finished
plots/             curves as PNG
predictions/       SPLIT.npz: what the network said of every image of a split
calibration.json   the temperature fitted on the validation images
robustness.json    accuracy on corrupted images, where that was measured
report.html        the page
evaluations.jsonl, test-openings.jsonl   what was measured later, and how often the test images were looked at
"""

import json
import os
import shlex
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.errors import UserError
from thumbnet.files import append_line, sha256_of, write_arrays, write_failed, write_json, write_text
from thumbnet.machine import Machine
from thumbnet.models.registry import create_model
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import Recipe, differences

if TYPE_CHECKING:
    from torch import Tensor, nn

    from thumbnet.data.datasets import Dataset
    from thumbnet.models.preprocessed import Preprocessed
    from thumbnet.predictions import Predictions


class Run:
    """One run folder. `Run.create` makes one, `Run.open` reads one; the files are the only state."""

    def __init__(self, path: Path, recipe: Recipe, data: dict[str, Any]):
        self.path = path
        self.recipe = recipe
        self.data = data  # data.json

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, recipe={self.recipe.name!r}, {'finished' if self.finished else 'unfinished'})"

    # ---------------------------------------------------------------- making and opening

    @staticmethod
    def create(path: Path, recipe: Recipe, data: "Dataset", environment: dict[str, Any]) -> "Run":
        """A new folder with recipe, data and environment written down. `path` must be absent or empty."""
        base = named_recipe(recipe.name)
        changed = {name: new for name, (new, _) in differences(recipe, base).items()}
        folder = path.with_name(f".{path.name}.tmp-{os.getpid()}")  # complete before it gets its name
        try:
            folder.mkdir(parents=True)
            write_text(folder / "changes.toml", as_toml(changed, f"what differs from the recipe {recipe.name}"))
            write_json(folder / "data.json", describe_data(data))
            write_json(folder / "environment.json", environment)
            write_text(folder / "recipe.toml", as_toml(recipe_table(recipe), "thumbnet train --config takes this file"))
            os.rename(folder, path)  # also onto an empty folder; fails where another run was quicker
        except OSError as error:
            raise write_failed(path, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Run(path, recipe, describe_data(data))

    @staticmethod
    def open(path: "str | Path") -> "Run":
        """The run in a folder written by `train`. Raises `UserError` where it is none, naming what is missing."""
        path = Path(path)
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} points at {path.readlink()}, which is gone; name another run folder")
        if not path.is_dir():
            raise UserError(f"there is no run folder {path}; `thumbnet train` makes one and prints where it lies")
        try:
            table = tomllib.loads((path / "recipe.toml").read_text(encoding="utf-8"))
            data = json.loads((path / "data.json").read_text(encoding="utf-8"))
            if not isinstance(data, dict) or not {
                "name",
                "location",
                "classes",
                "channels",
                "image_size",
                "fingerprint",
            } <= set(data):
                raise ValueError("data.json lacks what it should hold")
        except FileNotFoundError as error:
            raise UserError(f"{path} is not a run folder: it has no {Path(error.filename).name}") from error
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        name = table.pop("recipe", None)
        known = {field.name for field in fields(Recipe)}
        if unknown := set(table) - known:
            raise UserError(f"{path / 'recipe.toml'} has unknown fields: {', '.join(sorted(unknown))}")
        return Run(path, Recipe(name=str(name), **table), data)

    # ---------------------------------------------------------------- reading

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """The outcome; empty while the run is unfinished."""
        path = self.path / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row per finished epoch. A last line torn by a power cut is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """What `evaluate` measured, oldest first."""
        path = self.path / "evaluations.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    @property
    def calibrated(self) -> bool:
        """True where a temperature was fitted."""
        return (self.path / "calibration.json").is_file()

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 for a run without validation images."""
        path = self.path / "calibration.json"
        return json.loads(path.read_text(encoding="utf-8"))["temperature"] if path.is_file() else 1.0

    def predictions(self, split: str = "validation", views: int = 1) -> "Predictions":
        """What the run said of every image of a split. Raises `UserError` where that was not kept."""
        from thumbnet.predictions import load_predictions

        path = self.predictions_path(split, views)
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
        try:
            return json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} is damaged: environment.json cannot be read ({first_line(error)})") from error

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.data["classes"])

    def require_finished(self) -> None:
        """Raise `UserError` unless the final weights are there."""
        if not self.finished:
            raise UserError(f"the run {self.path} is unfinished; continue with: {self.resume_command}")

    @property
    def resume_command(self) -> str:
        """What to type to continue an interrupted run."""
        return f"thumbnet train {shlex.quote(self.data['name'])} --out {shlex.quote(str(self.path))} --resume"

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
        from safetensors.torch import load_file

        self.require_finished()
        if not (self.path / "model.safetensors").is_file():
            raise UserError(f"{self.path} has lost its model.safetensors; train again")
        model = build_model(self.recipe, channels=self.data["channels"], classes=len(self.classes))
        try:
            model.load_state_dict(load_file(self.path / "model.safetensors"))
        except Exception as error:
            raise UserError(
                f"{self.path / 'model.safetensors'} does not fit its recipe: {first_line(error)}"
            ) from error
        return model.eval()

    def load_data(self, *, data_dir: str | Path | None = None, **options: Any) -> "Dataset":
        """The data the run was trained on, found again where it lay, or in `data_dir`, cut as the recipe says.

        `options` are those of `load_dataset`; where they are not given, image size and the like are the run's.
        """
        from thumbnet.data.datasets import SPECS, load_dataset

        name, before = self.data["name"], Path(self.data["location"])
        if name not in SPECS:
            name, data_dir = str(data_dir or before), None
            if not Path(name).is_dir():
                raise UserError(
                    f"the images of {self.path} lay in {name}, which is gone; give their folder with --data-dir"
                )
        elif data_dir is None and before.exists():
            data_dir = before if before.is_dir() else before.parent
        as_before: dict[str, Any] = {}
        if name not in SPECS:
            as_before = {"image_size": self.data["image_size"][0], "skip_broken": bool(self.data.get("broken"))}
        return load_dataset(name, data_dir=data_dir, **(as_before | options)).with_validation(**self.recipe.cut)

    def check_data(self, data: "Dataset", *, strict: bool = True) -> "Dataset":
        """`data` cut as this run's recipe says, if its classes (and, where `strict`, its every pixel) are the run's."""
        if data.classes != self.classes:
            raise UserError(
                f"{data.name} has the classes {listed(data.classes)}, the run {self.path} {listed(self.classes)}"
            )
        if strict and data.fingerprint != self.data["fingerprint"]:
            raise UserError(
                f"{data.name} has changed since the run {self.path} (fingerprint {data.fingerprint}, then "
                f"{self.data['fingerprint']}), so its held-out images are not known; train again"
            )
        return data.with_validation(**self.recipe.cut)

    # ---------------------------------------------------------------- writing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder while writing; raises `UserError` if another process does."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise UserError(
                f"another process is training in {self.path}; wait for it, or choose another --out"
            ) from None

    def log_epoch(self, row: dict[str, Any]) -> None:
        """Add one epoch to metrics.jsonl."""
        append_line(self.path / "metrics.jsonl", json.dumps(row, allow_nan=False))

    def save_model(self, model: "nn.Module") -> None:
        """Write the final weights."""
        save_tensors(self.path / "model.safetensors", model.state_dict(), {"classes": json.dumps(self.classes)})

    def save_predictions(self, predictions: "Predictions") -> None:
        """Keep what was said of a split."""
        predictions.save(self.predictions_path(predictions.split, predictions.views))

    def save_calibration(self, measured: dict[str, Any]) -> None:
        """Keep the temperature, and what it was fitted on."""
        write_json(self.path / "calibration.json", measured)

    def save_robustness(self, measured: dict[str, Any]) -> None:
        """Keep what was measured on corrupted images."""
        write_json(self.path / "robustness.json", measured)

    @property
    def robustness(self) -> dict[str, Any] | None:
        """What was measured on corrupted images, or None."""
        path = self.path / "robustness.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, which declares the run finished, then drop the checkpoint."""
        write_json(self.path / "summary.json", summary)
        shutil.rmtree(self.path / "checkpoint", ignore_errors=True)

    def record_evaluation(self, measured: dict[str, Any]) -> None:
        """Add what was measured to evaluations.jsonl."""
        append_line(self.path / "evaluations.jsonl", json.dumps({"time": now(), **measured}, allow_nan=False))

    @property
    def test_openings(self) -> int:
        """How often the test images were opened for this run."""
        path = self.path / "test-openings.jsonl"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0

    def count_test_opening(self, data: "Dataset") -> None:
        """Leave a line before the test images are looked at."""
        row = {"time": now(), "images": len(data.test or ()), "fingerprint": data.fingerprint}
        append_line(self.path / "test-openings.jsonl", json.dumps(row))

    # ---------------------------------------------------------------- checkpoints

    def save_checkpoint(self, tensors: Mapping[str, "Tensor"], position: dict[str, Any]) -> None:
        """Store the state of training. The manifest's replacement is the moment the new state becomes the valid one."""
        folder = self.path / "checkpoint"
        state = folder / f"state.{position['epoch']}-{position['step']}.safetensors"
        save_tensors(state, tensors)
        write_json(folder / "manifest.json", {"position": position, "file": state.name, "sha256": sha256_of(state)})
        for old in folder.glob("*"):
            if old.name not in (state.name, "manifest.json"):
                old.unlink(missing_ok=True)

    def load_checkpoint(self) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """The tensors and position last saved, or None where nothing was. Metrics written after it are taken back."""
        from safetensors.torch import load_file

        folder = self.path / "checkpoint"
        if not (folder / "manifest.json").is_file():
            self.keep_metrics(0)
            return None
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            state, position = folder / manifest["file"], manifest["position"]
            intact = sha256_of(state) == manifest["sha256"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"the checkpoint in {folder} is damaged ({first_line(error)}); start a new run") from error
        if not intact:
            raise UserError(f"the checkpoint {state} is not what its manifest says; start a new run")
        self.keep_metrics(position["epoch"])
        return load_file(state), position

    def keep_metrics(self, epochs: int) -> None:
        """Drop the rows of epochs that a resumed run will train again."""
        rows = self.metrics
        kept = [row for row in rows if row["epoch"] <= epochs]
        if (self.path / "metrics.jsonl").is_file():
            write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def build_model(
    recipe: Recipe, *, channels: int, classes: int, mean: list[float] | None = None, std: list[float] | None = None
) -> "Preprocessed":
    """The recipe's network behind its preprocessing, freshly initialised from the recipe's seed."""
    from thumbnet.models.preprocessed import Preprocessed

    network = create_model(
        recipe.model,
        classes=classes,
        channels=channels,
        widths=recipe.widths,
        depth=recipe.depth,
        dropout=recipe.dropout,
        seed=recipe.seed,
    )
    return Preprocessed(network, mean or [0.0] * channels, std or [1.0] * channels, recipe.resolution[-1])


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Write tensors of any device to a safetensors file in one step."""
    write_arrays(path, {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}, metadata)


def describe_data(data: "Dataset") -> dict[str, Any]:
    """What data.json holds."""
    return {
        "name": data.name,
        "channels": data.channels,
        "image_size": list(data.image_size),
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "train": len(data.train),
        "validation": len(data.validation or ()),
        "test": len(data.test or ()),
        **data.facts,
    }


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the command line spells it: its name under `recipe`, then every field."""
    values = asdict(recipe)
    return {"recipe": values.pop("name"), **values}


def as_toml(values: dict[str, Any], comment: str) -> str:
    """TOML with a comment on top."""
    import tomli_w

    return f"# {comment}\n" + tomli_w.dumps(
        {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    )


def new_run_path(dataset: str, recipe: Recipe, root: Path = Path("runs")) -> Path:
    """runs/<data set>/<recipe>/<time>-s<seed>, with a number behind it where that is taken."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = root / Path(dataset).resolve().name / recipe.name
    path = folder / f"{stamp}-s{recipe.seed}"
    count = 2
    while path.exists():
        path, count = folder / f"{stamp}-s{recipe.seed}-{count}", count + 1
    return path


def point_latest(run: Path, root: Path = Path("runs")) -> None:
    """Let runs/latest point at the newest run under `root`; does nothing for runs elsewhere or where links do not exist."""
    try:
        target = run.resolve().relative_to(root.resolve())
        temporary = root / f".latest-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, root / "latest")
    except (OSError, ValueError):
        return


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in folders: a run folder stands for itself, another folder for all finished runs below it.

    Raises `UserError` where a folder is missing or holds none.
    """
    runs = []
    for path in paths:
        if (path / "recipe.toml").is_file() or not path.is_dir():
            runs.append(Run.open(path))
            continue
        below = sorted(file.parent for file in path.rglob("summary.json") if (file.parent / "recipe.toml").is_file())
        if not below:
            raise UserError(f"{path} is not a run folder and holds no finished run")
        runs += [Run.open(folder) for folder in below]
    return runs


def listed(names: tuple[str, ...]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def newest_unfinished(dataset: str, recipe: str | None, root: Path = Path("runs")) -> Path:
    """The youngest run folder of a data set (and recipe) that has no summary yet. Raises `UserError` where there is none."""
    folder = root / Path(dataset).resolve().name
    found = [
        path.parent
        for path in folder.glob(f"{recipe or '*'}/*/recipe.toml")
        if not (path.parent / "summary.json").is_file()
    ]
    if not found:
        raise UserError(f"nothing to resume: {folder} holds no unfinished run; name its folder with --out")
    return max(found, key=lambda path: (path / "recipe.toml").stat().st_mtime)
