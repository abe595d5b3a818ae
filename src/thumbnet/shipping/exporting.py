"""A run's network as one file that other programs use: preprocessing and calibration inside, and proof that it says the same.

Nothing of thumbnet is needed to use it: ONNX for onnxruntime and all that reads ONNX, or torch's own `.pt2`.
"""
# Shapes: N images, C channels, H and W height and width, K classes.

import importlib
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thumbnet.augment import to_float
from thumbnet.backend import processor_name
from thumbnet.errors import ThumbnetError, UserError
from thumbnet.files import replacing, write_json
from thumbnet.judging.calibration import threshold_for
from thumbnet.judging.evaluation import average_over_views, check_views
from thumbnet.judging.statistics import CLAIM_BELOW, mcnemar
from thumbnet.judging.thresholds import Threshold
from thumbnet.machine import Machine
from thumbnet.own_code import is_in_usual_order, of_one_line
from thumbnet.reading import sha256_of
from thumbnet.runs.run import Run
from thumbnet.shipping.exported import (
    FORMAT,
    IMAGES,
    KEY,
    NEEDED,
    PROBABILITIES,
    Facts,
    as_stored,
    digest_of,
    in_parts,
    load_exported,
)
from thumbnet.shipping.prediction import load_run
from thumbnet.shipping.quantizing import SAMPLED, quantize

if TYPE_CHECKING:
    from thumbnet.data.batches import Split
    from thumbnet.data.datasets import Dataset

ENDINGS = (".onnx", ".pt2")
CHECKED = 1000  # images that the file must say the same of, spread over the split
TOLERANCE = 1e-4  # of a probability; fp32 in another order differs by 1e-7 to 1e-5
BATCHES = (1, 7)  # sizes tried beside large ones: a graph can be right for that alone which it was made with
MOST_AT_ONCE = 65_536  # images in a batch of the file
OPSET = 20  # ONNX of 2023
MANY = 64  # images in a batch whose speed is told
TIMED_FOR = 0.3  # seconds of each of the two
CHECKED_INT8 = 5_000  # images that the two accuracies are compared on
MOST_LOST = 0.01  # of the accuracy by int8, if it is more than chance explains
MARGIN = (
    1e-5  # by which a threshold lies below the image that it is, so that the file's rounding does not lose that one
)
SURE = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)  # accuracies whose thresholds a file keeps


class Deployed(nn.Module):
    """What is exported: uint8 N H W C in, as files and cameras give images, calibrated probabilities N K out."""

    def __init__(self, network: nn.Module, temperature: float, views: int):
        super().__init__()
        self.network, self.temperature, self.views = network, temperature, views

    def forward(self, images: Tensor) -> Tensor:
        logits = average_over_views(self.network, to_float(images.permute(0, 3, 1, 2)), self.views)
        return (logits / self.temperature).softmax(1)


@dataclass(frozen=True)
class Receipt:
    """What was exported and how it was checked; written beside the file as FILE.receipt.json."""

    file: str
    bytes: int
    sha256: str
    run: str
    weights_of_run: str | None  # SHA-256 of its model.safetensors
    recipe: str
    seed: int
    data: str
    fingerprint: str  # of the data
    classes: int
    image_size: tuple[int, int]
    channels: int
    views: int
    temperature: float
    split: str  # whose images it was checked with
    images: int
    largest_difference: float  # of a probability, from what the run's network says in fp32
    tolerance: float | None  # None for int8, which is judged by the accuracies
    same_class: int  # images that both take for the same
    accuracy: float  # of the file on these images
    accuracy_of_run: float
    parameters: int
    speed: "Speed"  # of the file where it was checked
    versions: dict[str, str]
    thresholds: tuple[Threshold, ...] = ()  # what the file says of being sure; see `Facts`
    precision: str = "fp32"  # what the file computes in
    p: float | None = None  # for int8: McNemar's, that it and the run are right equally often


@dataclass(frozen=True)
class Speed:
    """How fast a file answers on the CPU of one machine: the median over repetitions, after some that warm up."""

    milliseconds: float  # for one image
    images_per_second: float  # in batches of `MANY`
    processor: str


def export_file(
    run: Run,
    path: Path,
    *,
    views: int,
    int8: bool = False,
    data: "Dataset | None" = None,
    data_dir: str | Path | None = None,
) -> Receipt:
    """Write a finished run's network to FILE.onnx or FILE.pt2, once it was shown to say what the run says.

    Up to 1,000 validation images (training images of a run that held none out) go through both, and no file is left where a
    probability differs by more than 1e-4. `views` are averaged inside the file. `int8` then rewrites an ONNX file in whole
    numbers, which is not left either if up to 5,000 such images show it to be worse by more than a point. Raises `UserError` for
    another ending, an unfinished run, data that are gone, and where what the file's kind needs is not installed;
    `ThumbnetError` where it differs.
    """
    check_views(views, mirrored=run.recipe.flip)
    check_can_export(path, int8=int8)
    run.require_finished()
    data = run.check_data(data or run.load_data(data_dir=data_dir))
    split, name = images_to_check(data)
    held_out = (split, data.groups_at(name, split.rows)) if name == "validation" else None
    classifier = load_run(run, machine=Machine(device="cpu", precision="fp32"))
    say = partial(classifier.probabilities, views=views)
    facts = Facts(
        format=FORMAT, thumbnet=version("thumbnet"), recipe=run.recipe.name, data=run.data.title, classes=run.classes,
        channels=classifier.channels, image_size=classifier.image_size, temperature=classifier.temperature, views=views,
        weights="", thresholds=thresholds_of(say, *held_out) if held_out else (),
    )  # fmt: skip
    deployed = Deployed(classifier.model, classifier.temperature, views).eval()
    write, read = WAYS[path.suffix.lower()]
    with replacing(path) as temporary:
        write(deployed, facts, temporary)
        compute = read(temporary)
        checked = checked_with(compute, say, split, CHECKED)
        check_same(path, checked)
        if int8:
            facts = rewrite_in_int8(temporary, facts, data.train, held_out)
            compute = read(temporary)
            checked = checked_with(compute, say, split, CHECKED_INT8)
            check_as_good(path, checked)
        speed = speed_of(compute, split.evenly_spaced(MANY)[0].numpy())
        size, digest = temporary.stat().st_size, sha256_of(temporary)
        receipt_path(path).unlink(missing_ok=True)  # of the file that is replaced now
    receipt = Receipt(
        file=str(path), bytes=size, sha256=digest, run=run.path.resolve().name, weights_of_run=run.summary.get("model_sha256"),
        recipe=run.recipe.name, seed=run.recipe.seed, data=run.data.title, fingerprint=run.data["fingerprint"],
        classes=len(facts.classes), image_size=facts.image_size, channels=facts.channels, views=views,
        temperature=facts.temperature, split=name, images=checked.images, largest_difference=checked.largest_difference,
        tolerance=None if int8 else TOLERANCE, same_class=checked.same_class, accuracy=checked.accuracy,
        accuracy_of_run=checked.accuracy_of_run, versions=versions(path), speed=speed,
        parameters=sum(parameter.numel() for parameter in classifier.model.parameters()), thresholds=facts.thresholds,
        precision=facts.precision, p=checked.p if int8 else None,
    )  # fmt: skip
    write_json(receipt_path(path), asdict(receipt))
    return receipt


Compute: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # N C H W -> N K


def thresholds_of(say: Compute, split: "Split", groups: torch.Tensor | None) -> tuple[Threshold, ...]:
    """From where on answers are sure as the file will give them, for each of `SURE` that they ever are on these images."""
    images, labels = split.take(torch.arange(len(split)))
    confidence, place = torch.from_numpy(say(images.numpy())).max(1)
    found = (threshold_for(confidence, place == labels, accuracy, groups) for accuracy in SURE)
    return tuple(replace(it, confidence=max(0.0, it.confidence - MARGIN)) for it in found if it)


def check_can_export(path: Path, *, int8: bool = False) -> None:
    """Raise `UserError` for a file that cannot be written here, before anything is computed."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"cannot export to {path}; give a name that ends in {' or '.join(ENDINGS)}, or a folder")
    if int8 and ending != ".onnx":
        raise UserError(
            f"int8 is for ONNX files, and {path} is none; give a name that ends in .onnx, or leave int8 out"
        )
    if ending == ".onnx":
        try:
            for name in ("onnx", "onnxruntime", "onnxscript"):
                importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"exporting to ONNX needs {error.name or 'onnx'}; install it with: {NEEDED}") from error


def receipt_path(path: Path) -> Path:
    """Where the receipt of an exported file lies: beside it."""
    return path.with_name(f"{path.name}.receipt.json")


def images_to_check(data: "Dataset") -> tuple["Split", str]:
    """The images that trained nothing, or those that trained where all did; never the test images."""
    return (data.validation, "validation") if data.validation is not None else (data.train, "train")


@dataclass(frozen=True)
class Checked:
    """An exported file beside the run's network, on the same images."""

    images: int
    beyond: int  # images with a probability that differs by more than `TOLERANCE`, or is no number
    largest_difference: float
    same_class: int
    accuracy: float
    accuracy_of_run: float
    p: float  # McNemar's, that both are right equally often


def checked_with(compute: Compute, say: Compute, split: "Split", count: int) -> Checked:
    """What a file computes and what the network says, of up to `count` images spread over a split."""
    images, labels = split.evenly_spaced(count)
    found, expected, truth = in_batches(compute, images.numpy()), say(images.numpy()), labels.numpy()
    difference = np.abs(found - expected).max(1)
    right, right_in_run = found.argmax(1) == truth, expected.argmax(1) == truth
    return Checked(
        images=len(truth),
        beyond=int((~(difference <= TOLERANCE)).sum()),
        largest_difference=float(difference.max()),
        same_class=int((found.argmax(1) == expected.argmax(1)).sum()),
        accuracy=float(right.mean()),
        accuracy_of_run=float(right_in_run.mean()),
        p=mcnemar(int((right & ~right_in_run).sum()), int((right_in_run & ~right).sum())),
    )


def check_same(path: Path, checked: Checked) -> None:
    """Raise `ThumbnetError` where the file does not say what the network says; NaN never does."""
    if checked.beyond:
        raise ThumbnetError(
            f"nothing was written to {path}: what was exported says something else than the network on {checked.beyond:,} of "
            f"{checked.images:,} images (by {checked.largest_difference:.2g}, allowed are {TOLERANCE:g}); please report it"
        )


def check_as_good(path: Path, checked: Checked) -> None:
    """Raise `ThumbnetError` where int8 costs more than `MOST_LOST`, and chance does not explain it."""
    if checked.accuracy_of_run - checked.accuracy > MOST_LOST and checked.p < CLAIM_BELOW:
        raise ThumbnetError(
            f"nothing was written to {path}: in int8 it is right on {checked.accuracy:.2%} of {checked.images:,} images, the "
            f"network in fp32 on {checked.accuracy_of_run:.2%}; export it without int8"
        )


def in_batches(compute: Compute, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities N K of images N C H W: in batches of `BATCHES` images first, then of many."""
    *small, rest = np.split(pixels, np.cumsum(BATCHES))
    return np.concatenate([compute(part) for part in (*small, *in_parts(rest)) if len(part)])


def speed_of(compute: Compute, pixels: NDArray[np.uint8]) -> Speed:
    """Of a file that takes images N C H W, of which there is one at least."""
    many = np.resize(pixels, (MANY, *pixels.shape[1:]))  # repeated where there are fewer
    one = median_seconds(partial(compute, pixels[:1]))
    return Speed(round(1000 * one, 3), round(MANY / median_seconds(partial(compute, many)), 1), processor_name())


def median_seconds(work: Callable[[], object]) -> float:
    """What `work` takes: the median of as many repetitions as fit `TIMED_FOR`, three at least, after two that warm up."""
    work()
    work()
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - begun < TIMED_FOR:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def write_onnx(deployed: Deployed, facts: Facts, path: Path) -> None:
    """One ONNX file, its weights inside."""
    with quiet_exporters():
        program = torch.onnx.export(
            program_of(deployed, facts),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[IMAGES],
            output_names=[PROBABILITIES],
        )
    assert program is not None
    save_with(facts, program.model_proto, path)


def save_with(facts: Facts, model: Any, path: Path) -> None:
    """Write an ONNX model with the facts in its metadata, and the digest of its weights in them.

    The exporter's notes on each node go, of which some count what this process exported before: a run gives one file.
    """
    for part in (model, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(asdict(replace(facts, weights=digest_of(model)))))
    model.doc_string = f"{facts.recipe} on {facts.data}: images uint8 N H W C, probabilities float32 N K"
    path.write_bytes(model.SerializeToString())


def rewrite_in_int8(
    path: Path, facts: Facts, train: "Split", held_out: "tuple[Split, torch.Tensor | None] | None"
) -> Facts:
    """Turn an exported ONNX file into one in int8, by some of the training images; the facts it has now.

    From where on it is sure is found anew, by its own answers to the images held out, if some were, and their groups.
    """
    import onnx

    quantize(path, train.evenly_spaced(SAMPLED)[0].numpy())
    model = onnx.load(path)
    facts = replace(facts, precision="int8")
    save_with(facts, model, path)
    if held_out is not None:
        facts = replace(facts, thresholds=thresholds_of(partial(in_batches, read_onnx(path)), *held_out))
        save_with(facts, model, path)
    return facts


def read_onnx(path: Path) -> Compute:
    """The file as onnxruntime computes it."""
    return load_exported(path).computed


def write_pt2(deployed: Deployed, facts: Facts, path: Path) -> None:
    """torch's own exported program, with the facts beside it in the archive as `thumbnet.json`."""
    with quiet_exporters(), open(path, "wb") as file:
        torch.export.save(program_of(deployed, facts), file, extra_files={f"{KEY}.json": json.dumps(asdict(facts))})


def read_pt2(path: Path) -> Compute:
    """The program just written, as torch computes it. Files of others are not read: they may hold code."""
    with quiet_exporters(), open(path, "rb") as file:
        module = torch.export.load(file).module()

    @torch.no_grad()
    def compute(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return module(torch.from_numpy(as_stored(pixels))).numpy()  # type: ignore[no-any-return]

    return compute


WAYS = {".onnx": (write_onnx, read_onnx), ".pt2": (write_pt2, read_pt2)}


def example(facts: Facts) -> Tensor:
    """Two images, from which the shapes are read."""
    return torch.zeros(2, *facts.image_size, facts.channels, dtype=torch.uint8)


def program_of(deployed: Deployed, facts: Facts) -> torch.export.ExportedProgram:
    """What the network does, as a graph for any number of images. Raises `UserError` where one of the user's own has none."""
    try:
        return torch.export.export(deployed, (example(facts),), dynamic_shapes={IMAGES: {0: batch()}})
    except Exception as error:
        if not is_in_usual_order(deployed):
            raise
        fixed = "it fixes the number of images, as len(x) does; take x.size(0), or -1 in a view"
        why = fixed if "specialized it to be a constant" in str(error) else of_one_line(error)
        raise UserError(f"this network cannot be written as a graph: {why}") from error


def batch() -> Any:
    """The number of images, which stays open."""
    return torch.export.Dim("batch", min=1, max=MOST_AT_ONCE)


def versions(path: Path) -> dict[str, str]:
    """Of what wrote and checked the file."""
    names = ["thumbnet", "torch", *(["onnx", "onnxscript", "onnxruntime"] if path.suffix.lower() == ".onnx" else [])]
    return {name: version(name) for name in names}


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Without torch's remarks on its own future and on libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
