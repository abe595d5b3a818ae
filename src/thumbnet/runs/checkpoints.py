"""The whole state of a training, written so that no failure of a save costs more than the work since the one before.

In a folder lie the two newest states, each a pair of files:

<epoch>-<step>.safetensors   every tensor, with the position and the owner in its metadata
<epoch>-<step>.json          its manifest: length and SHA-256; written last, and only its presence makes the state count

Nothing here trusts a file: a state is used when its manifest fits it, it belongs to the run, and its tensors are those
expected, finite. Else the one before is used, and the reason is told.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import UserError, first_line
from thumbnet.files import write_arrays, write_failed, write_json
from thumbnet.reading import NUMBER, Fields, parse_json, sha256_of

KEPT = 2  # the newest, and the one before in case its disk or memory lied
LARGEST_MANIFEST = 4096  # bytes; ours have 200
OURS = re.compile(r"(?P<name>\d+-\d+)\.(json|safetensors)")
TEMPORARY = re.compile(r"\.(.+\.tmp-\d+|tmp\w+)")  # our writer's, and that of the safetensors library
POSITION: Fields = {"epoch": int, "step": int, "epochs": NUMBER, "seconds": NUMBER, "training_seconds": NUMBER}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A state of training as it was saved: its tensors, where training stood, and why newer states were passed over."""

    arrays: Arrays
    position: dict[str, Any]
    path: Path
    passed_over: list[str] = field(default_factory=list)


class Unfit(Exception):
    """This state cannot be used; the text says why."""


def save_checkpoint(folder: Path, arrays: Arrays, position: dict[str, Any], owner: str) -> None:
    """Store a state; `position` is JSON with at least `epoch` and `step`, `owner` names the run it belongs to.

    When this returns the state survives a power cut. When it raises `UserError`, or the process dies in it, the states
    before are as they were. A state of this very step that is there and whole is left as it is: they are the same.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, and checkpoints are not written through one; remove it")
    name = f"{position['epoch']}-{position['step']}"
    state, manifest = folder / f"{name}.safetensors", folder / f"{name}.json"
    try:
        if manifest.exists():
            with suppress(Unfit):
                read_state(manifest, owner)
                return
            manifest.unlink()  # before the state is replaced: together they would be believed, or blamed
        write_arrays(state, arrays, {"owner": owner, "position": json.dumps(position)})
        write_json(manifest, {"bytes": state.stat().st_size, "sha256": sha256_of(state)})
        tidy_up(folder, manifest)
    except OSError as error:
        raise write_failed(manifest, error) from error


def tidy_up(folder: Path, newest: Path) -> None:
    """Remove all states but `newest` and those before it that are kept, and what a killed process left of a save.

    States of later steps are of a life of the run that was passed over, since they were damaged.
    """
    before = [path for path in manifests(folder) if (place_of(path) or (0, 0)) < (place_of(newest) or (0, 0))]
    kept = {path.stem for path in (newest, *before[: KEPT - 1])}
    for other in folder.iterdir():
        ours = OURS.fullmatch(other.name)
        if TEMPORARY.fullmatch(other.name) or (ours and ours["name"] not in kept):
            with suppress(OSError):  # it is in nobody's way
                other.unlink()


def load_checkpoint(folder: Path, owner: str, check: Callable[[Arrays], None]) -> Checkpoint | None:
    """The newest state that can be used, or None where none was saved.

    `check` raises `Unfit` where the tensors are not those of the run. Raises `UserError` where states are there and none
    can be used.
    """
    while True:
        passed_over: list[str] = []
        found = manifests(folder)
        for manifest in found:
            try:
                arrays, position = read_state(manifest, owner)
                check(arrays)
                return Checkpoint(arrays, position, manifest, passed_over)
            except Unfit as reason:
                passed_over.append(f"the checkpoint {manifest} {reason}")
        if all(manifest.exists() for manifest in found):  # else a newer one has replaced them while we looked
            break
    if passed_over:
        raise UserError(f"{'; '.join(passed_over)}; none is left to continue from, start a new run")
    return None


def manifests(folder: Path) -> list[Path]:
    """The manifests of a folder, the newest state first."""
    found = [path for path in folder.glob("*.json") if place_of(path) is not None]
    return sorted(found, key=lambda path: place_of(path) or (0, 0), reverse=True)


def place_of(manifest: Path) -> tuple[int, int] | None:
    """Epoch and step that a manifest is named after, or None for another file."""
    epoch, _, step = manifest.stem.partition("-")
    known = all(number.isascii() and number.isdigit() and len(number) < 19 for number in (epoch, step))
    return (int(epoch), int(step)) if known else None


def read_state(manifest: Path, owner: str) -> tuple[Arrays, dict[str, Any]]:
    """Tensors and position of one state. Raises `Unfit` unless every byte is what was written, by this run."""
    from safetensors import safe_open

    state = manifest.with_suffix(".safetensors")
    try:
        if manifest.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("too long")
        if not (text := manifest.read_text(encoding="utf-8")).endswith("}\n"):
            raise ValueError("cut short")
        told = parse_json(text, {"bytes": int, "sha256": str})
        size, digest = told["bytes"], told["sha256"]
    except (OSError, ValueError) as error:
        raise Unfit("has a damaged manifest") from error
    try:
        if state.stat().st_size != size:
            raise Unfit(f"has {state.stat().st_size} bytes, {size} by its manifest")
        if sha256_of(state) != digest:
            raise Unfit("has another SHA-256 than its manifest says")
        with safe_open(state, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        position = parse_json(metadata.get("position", ""), POSITION)
        place = position["epoch"], position["step"]
    except Unfit:
        raise
    except Exception as error:  # types that numpy lacks end in several kinds
        raise Unfit(f"cannot be read ({first_line(error)})") from error
    if metadata.get("owner") != owner:
        raise Unfit("belongs to another run")
    if place != place_of(manifest):
        raise Unfit(f"was saved as {place[0]}-{place[1]} and renamed")
    return arrays, position


def check_arrays(arrays: Arrays, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Raise `Unfit` unless these are arrays of exactly the expected names, shapes and types, all numbers finite."""
    for name in sorted(expected.keys() ^ arrays.keys()):
        raise Unfit(f"{'lacks' if name in expected else 'has an unknown'} {name}")
    for name, (shape, kind) in expected.items():
        array = arrays[name]
        if (array.shape, array.dtype.name) != (shape, kind):
            raise Unfit(f"has {name} as {array.dtype.name} {array.shape}, expected {kind} {shape}")
        if not np.isfinite(array).all():
            raise Unfit(f"has numbers in {name} that are not finite")
