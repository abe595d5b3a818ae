"""The classifier that computes with an exported ONNX file: by onnx and onnxruntime, without torch or the run folder."""
# Shapes: N images, C channels, H and W height and width, K classes.

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.errors import UserError, first_line
from thumbnet.judging.thresholds import Threshold
from thumbnet.machine import Machine
from thumbnet.processes import look_for_garbage_as_usual
from thumbnet.reading import NUMBER, Fields, parse_json
from thumbnet.shipping.classifier import Classifier
from thumbnet.words import counted

FORMAT = 1  # of `Facts`; a reader refuses what it does not know
KEY = "thumbnet"  # under which the file's own metadata hold `Facts`
MODEL = "model.onnx"  # in a folder to hand on, see bundle/
IMAGES, PROBABILITIES = "images", "probabilities"  # uint8 N H W C in, float32 N K out
NEEDED = "pip install 'thumbnet[export]' (in a clone: pip install -e '.[export]')"
LARGEST_FILE = 2**31  # bytes; protobuf's own limit
PIXELS_AT_ONCE = 500 * 32**2  # of the images computed together, as in evaluation.py
PRECISIONS = ("fp32", "int8")
MOST_LETTERS = 200  # of what onnxruntime says
SILENT = 4  # onnxruntime's level of messages: fatal ones only, since what fails is told in one line


@dataclass(frozen=True)
class Facts:
    """What stands in an exported file beside the graph, as JSON."""

    format: int
    thumbnet: str  # version
    recipe: str
    data: str
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    temperature: float  # divides the logits inside the file
    views: int  # averaged inside the file
    weights: str  # SHA-256 of all tensors of the graph, see `digest_of`
    thresholds: tuple[Threshold, ...] = ()  # from where on answers are sure; none of older files
    precision: str = "fp32"  # what it computes in: fp32, or int8 in convolutions and matrix products


FACTS: Fields = {
    "format": int, "thumbnet": str, "recipe": str, "data": str, "classes": list, "channels": int, "image_size": list,
    "temperature": NUMBER, "views": int, "weights": str,
}  # fmt: skip


def exported_file(path: str | Path) -> Path | None:
    """The exported file that is named: by its ending, or as the folder to hand on that it lies in; None for anything else."""
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        return path
    inside = path / MODEL  # a run folder may hold one too; it stays a run
    return inside if inside.is_file() and not (path / "recipe.toml").exists() else None


class ExportedClassifier(Classifier):
    """An exported file in onnxruntime, on the CPU. Its views are those it was exported with."""

    def __init__(self, path: Path, session: Any, facts: Facts, *, threads: int | None = None):
        super().__init__(facts.classes, facts.channels, facts.image_size, facts.temperature)
        self.path, self.session, self.facts, self.threads = path, session, facts, threads

    def computed_by(self) -> str:
        named = "onnxruntime" + (", int8" if self.facts.precision == "int8" else "")
        return named + (f", {counted(self.threads, 'thread')}" if self.threads else "")

    def probabilities(self, pixels: NDArray[np.uint8], *, views: int | None = None) -> NDArray[np.float32]:
        self.views_taken(views)  # refuses others than those inside
        found = np.concatenate([self.computed(part) for part in in_parts(pixels)])
        if not (found >= 0).all() or not np.allclose(found.sum(1), 1, atol=1e-3):  # a NaN is neither
            raise UserError(f"{self.path} is damaged: its answers are no probabilities; export it again")
        return found

    def views_taken(self, views: int | None) -> int:
        if views not in (None, self.facts.views):
            raise UserError(f"views is {views}, and the exported file has {self.facts.views} inside; leave it out")
        return self.facts.views

    def sure_from(self, accuracy: float) -> Threshold:
        """The probability from which on a part `accuracy` of the answers on the run's validation images was right.

        Raises `UserError` where the file does not say.
        """
        if not 0 < accuracy < 1:
            raise UserError(f"sure is {accuracy:g}; give the accuracy wanted of the answers, above 0 and below 1")
        for threshold in self.facts.thresholds:
            if threshold.target == accuracy:
                return threshold
        known = ", ".join(f"{threshold.target:g}" for threshold in self.facts.thresholds)
        if not known:
            raise UserError(
                f"sure is {accuracy:g}, and {self.path} does not say from where on it is sure: it is of an earlier version, or "
                "its run held no images out or was never sure with reason; export a run that was"
            )
        raise UserError(
            f"sure is {accuracy:g}, and {self.path} knows {known}; take one of these, or name the run folder"
        )

    def computed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the graph says of images N C H W, all at once."""
        try:
            [found] = self.session.run([PROBABILITIES], {IMAGES: as_stored(pixels)})
        except Exception as error:  # a dozen types of onnxruntime's own without a common base
            raise UserError(f"{self.path} cannot be computed: {reason(error)}; export it again") from error
        return np.asarray(found)


def reason(error: Exception) -> str:
    """What onnxruntime says, which can be a page."""
    return first_line(error)[:MOST_LETTERS]


def in_parts(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Images N C H W, as many at once as `PIXELS_AT_ONCE` allows."""
    count = max(1, PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3]))
    return (pixels[start : start + count] for start in range(0, len(pixels), count))


def as_stored(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """N C H W -> N H W C, as files and arrays of images have it."""
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def load_exported(path: str | Path, *, machine: Machine | None = None) -> ExportedClassifier:
    """The classifier of a file that `thumbnet export` wrote.

    Raises `UserError` where it is none, is damaged, or refers to other files, which ONNX allows and an export never does.
    """
    path, machine = Path(path), machine or Machine()
    if machine.device not in ("auto", "cpu") or machine.precision == "bf16":
        raise UserError(f"{path} is computed on the CPU in fp32; leave --device and --precision out")
    look_for_garbage_as_usual()
    content = read_file(path)
    facts = facts_in(path, content)  # before onnxruntime sees a file that is not ours
    return ExportedClassifier(path, open_session(path, content, facts, machine.threads), facts, threads=machine.threads)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file that is no larger than an ONNX file can be."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give an exported file, or a run folder whose name does not end in .onnx")
    if not path.is_file():
        raise UserError(f"there is no file {path}; `thumbnet export RUN {path.name}` makes one")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than an ONNX file can have")
    return path.read_bytes()


def facts_in(path: Path, content: bytes) -> Facts:
    """What the file says of itself. Raises `UserError` for what is no ONNX, is damaged, or names files that would be read too."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError(f"an ONNX file needs {error.name or 'onnx'}; install it with: {NEEDED}") from error
    try:
        model = onnx.load_model_from_string(content)
        told = {row.key: row.value for row in model.metadata_props}
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is no ONNX file, or a damaged one: {first_line(error)}; export it again") from error
    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(f"{path} refers to another file, which is not read; export it again")
    facts = facts_of(path, told.get(KEY))
    if digest_of(model) != facts.weights:
        raise UserError(f"{path} is damaged: its weights are not those that were exported; export it again")
    return facts


def digest_of(model: Any) -> str:
    """SHA-256 of all tensors of an ONNX model, as hex digits."""
    found = hashlib.sha256()
    for tensor in tensors_of(model):
        found.update(tensor.SerializeToString(deterministic=True))
    return found.hexdigest()


def tensors_of(message: Any) -> Iterator[Any]:
    """Every tensor anywhere in a message of protobuf."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                yield from tensors_of(part)


def open_session(path: Path, content: bytes, facts: Facts, threads: int | None) -> Any:
    """onnxruntime's session, on the CPU. Raises `UserError` where the graph takes or gives something else than the facts say."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"an ONNX file needs {error.name or 'onnxruntime'}; install it with: {NEEDED}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own, which was not looked at above
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )  # the fallback is the same again, and prints
        inputs, outputs = (
            [(row.name, row.type, row.shape[1:]) for row in rows]
            for rows in (session.get_inputs(), session.get_outputs())
        )
    except Exception as error:  # a dozen types of its own without a common base
        raise UserError(f"{path} cannot be computed: {reason(error)}; export it again") from error
    wanted = [(IMAGES, "tensor(uint8)", [*facts.image_size, facts.channels])]
    given = [(PROBABILITIES, "tensor(float)", [len(facts.classes)])]
    if inputs != wanted or outputs != given:
        told = f"{inputs} and gives {outputs}, not {wanted} and {given}".replace("'", "")
        raise UserError(f"{path} is damaged: its graph takes {told}; export it again")
    return session


def facts_of(path: Path, text: str | None) -> Facts:
    """What the file says of itself. Raises `UserError` where it was not written by `thumbnet export`."""
    if text is None:
        raise UserError(f"{path} was not written by `thumbnet export`: it says nothing of its classes and images")
    try:
        table = parse_json(text, FACTS)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from error
    if table["format"] != FORMAT:
        raise UserError(f"{path} was written by thumbnet {table['thumbnet']!r}, whose files this one cannot read")
    classes, size = table["classes"], table["image_size"]
    named = all(isinstance(name, str) and name for name in classes) and len(set(map(str, classes))) == len(classes) > 1
    sized = len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if not (named and sized and table["channels"] in (1, 3) and table["views"] in (1, 2, 6)):
        raise UserError(f"{path} is damaged: its classes, image size, channels or views are none; export it again")
    known = {name: table[name] for name in FACTS}
    try:
        thresholds = tuple(threshold_in(row) for row in table.get("thresholds", ()))
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: its thresholds are none; export it again") from error
    precision = table.get("precision", "fp32")
    if precision not in PRECISIONS:
        raise UserError(f"{path} computes in {precision!r}, which this thumbnet does not know; export it again")
    made = {"classes": tuple(classes), "image_size": tuple(size), "thresholds": thresholds, "precision": precision}
    return Facts(**known | made)


def threshold_in(row: Any) -> Threshold:
    """One threshold as a file has it. Raises `TypeError`, `KeyError` or `ValueError` for anything else."""
    low, high = row["interval95"]
    parts = {name: row[name] for name in ("target", "confidence", "coverage", "accuracy")}
    if not all(type(part) in (int, float) and 0 <= part <= 1 for part in (*parts.values(), low, high)):
        raise ValueError(f"{row} is no threshold")
    counts = {"images": row["images"]} | ({} if row.get("groups") is None else {"groups": row["groups"]})
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise ValueError(f"{row} is no threshold")
    return Threshold(**parts, interval95=(low, high), **counts)
