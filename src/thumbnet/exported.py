"""The classifier that computes with an exported ONNX file. It needs onnxruntime, and neither torch nor the run folder."""
# Shapes: N images, C channels, H and W height and width, K classes.

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.classifier import Classifier
from thumbnet.errors import UserError
from thumbnet.files import NUMBER, Fields, first_line, parse_json
from thumbnet.machine import Machine
from thumbnet.words import counted

FORMAT = 1  # of `Facts`; a reader refuses what it does not know
KEY = "thumbnet"  # under which the file's own metadata hold `Facts`
IMAGES, PROBABILITIES = "images", "probabilities"  # uint8 N H W C in, float32 N K out
NEEDED = "pip install 'thumbnet[export]'"
LARGEST_FILE = 2**31  # bytes; protobuf's own limit
PIXELS_AT_ONCE = 500 * 32**2  # of the images computed together, as in evaluation.py
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


FACTS: Fields = {
    "format": int, "thumbnet": str, "recipe": str, "data": str, "classes": list, "channels": int, "image_size": list,
    "temperature": NUMBER, "views": int,
}  # fmt: skip


def is_exported(path: str | Path) -> bool:
    """Whether this names an exported file, by its ending."""
    return Path(path).suffix.lower() == ".onnx"


class ExportedClassifier(Classifier):
    """An exported file in onnxruntime, on the CPU. Its views are those it was exported with."""

    def __init__(self, session: Any, facts: Facts, *, threads: int | None = None):
        super().__init__(facts.classes, facts.channels, facts.image_size)
        self.session = session
        self.facts = facts
        self.threads = threads

    def computed_by(self) -> str:
        return "onnxruntime" + (f", {counted(self.threads, 'thread')}" if self.threads else "")

    def probabilities(self, pixels: NDArray[np.uint8], *, views: int = 1) -> NDArray[np.float32]:
        if views not in (1, self.facts.views):
            raise UserError(f"views is {views}, and the exported file has {self.facts.views} inside; leave it out")
        at_once = max(1, PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3]))
        parts = [pixels[start : start + at_once] for start in range(0, len(pixels), at_once)]
        rows = [self.session.run([PROBABILITIES], {IMAGES: as_stored(part)})[0] for part in parts]
        return np.concatenate(rows)


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
    if machine.threads is not None and not 1 <= machine.threads <= 4 * (os.cpu_count() or 1):
        raise UserError(f"threads is {machine.threads}, and this machine has {os.cpu_count()} cores; give that or less")
    content = read_file(path)
    check_self_contained(path, content)
    session = open_session(path, content, machine.threads)
    facts = facts_of(path, session.get_modelmeta().custom_metadata_map.get(KEY))
    check_shapes(path, session, facts)
    return ExportedClassifier(session, facts, threads=machine.threads)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file that is no larger than an ONNX file can be."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; `thumbnet export RUN {path.name}` makes one")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than an ONNX file can have")
    return path.read_bytes()


def check_self_contained(path: Path, content: bytes) -> None:
    """Raise `UserError` for what is no ONNX, or names files beside it that would be read too."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError(f"an ONNX file needs {error.name}; install it with: {NEEDED}") from error
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is no ONNX file, or a damaged one: {first_line(error)}") from error
    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(f"{path} refers to another file, which is not read; export it again")


def tensors_of(message: Any) -> Iterator[Any]:
    """Every tensor anywhere in a message of protobuf."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from tensors_of(part)


def open_session(path: Path, content: bytes, threads: int | None) -> Any:
    """onnxruntime's session, on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"an ONNX file needs onnxruntime; install it with: {NEEDED}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a dozen types of its own without a common base
        raise UserError(f"{path} cannot be computed: {first_line(error)}; export it again") from error


def facts_of(path: Path, text: str | None) -> Facts:
    """What the file says of itself. Raises `UserError` where it was not written by `thumbnet export`."""
    if text is None:
        raise UserError(f"{path} was not written by `thumbnet export`: it says nothing of its classes and images")
    try:
        table = parse_json(text, FACTS)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from error
    if table["format"] != FORMAT:
        raise UserError(f"{path} was written by thumbnet {table['thumbnet']}, whose files this one cannot read")
    known = {name: table[name] for name in FACTS}
    return Facts(**known | {"classes": tuple(table["classes"]), "image_size": tuple(table["image_size"])})


def check_shapes(path: Path, session: Any, facts: Facts) -> None:
    """Raise `UserError` where the graph takes or gives something else than the facts say."""
    inputs, outputs = (
        [(row.name, row.type, row.shape[1:]) for row in rows] for rows in (session.get_inputs(), session.get_outputs())
    )
    wanted = [(IMAGES, "tensor(uint8)", [*facts.image_size, facts.channels])]
    given = [(PROBABILITIES, "tensor(float)", [len(facts.classes)])]
    if inputs != wanted or outputs != given or not all(isinstance(name, str) for name in facts.classes):
        raise UserError(f"{path} is damaged: its graph takes {inputs} and gives {outputs}; export it again")
