"""What stands in the page of one run, section by section: plain values that the templates show."""
# Shapes: N images, C channels, H and W height and width.

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thumbnet.data.batches import Split
from thumbnet.data.groups import of_groups, told_of_groups
from thumbnet.errors import UserError, first_line
from thumbnet.judging.calibration import (
    answers_from,
    confidence_and_hits,
    reliability,
    risk_coverage,
    threshold_for,
)
from thumbnet.judging.evaluation import Scores, score_predictions
from thumbnet.judging.explanation import SEARCHED, Explanation, explain
from thumbnet.judging.statistics import widest_half
from thumbnet.judging.thresholds import Threshold
from thumbnet.measuring.operations import training_flops
from thumbnet.own_code import kept_in
from thumbnet.plots import judging
from thumbnet.plots.curves import curve
from thumbnet.plots.images import occlusion_overlay
from thumbnet.recipes import as_typed, base_of, title_of
from thumbnet.recipes.recipe import Recipe, differences
from thumbnet.report.pictures import Picture, as_overlay, as_svg, as_thumbnail
from thumbnet.runs.predictions import Predictions
from thumbnet.runs.run import Run
from thumbnet.shipping.prediction import load_run
from thumbnet.words import counted, duration, nats, shortened

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

MISTAKES = 12  # shown with maps and neighbours
SAMPLES = 3  # training images of each class in the sample grid, of at most SAMPLED_CLASSES
SAMPLED_CLASSES = 20
TARGETS = (0.9, 0.95, 0.99)  # accuracies for which "answer only when sure" is told


@dataclass(frozen=True)
class Judged:
    """A run with what it said of the split that the page judges it by."""

    run: Run
    predictions: Predictions
    scores: Scores


def judged(run: Run) -> Judged | None:
    """By the test images where the run was measured on them, else by the validation images; None where neither is kept."""
    for split in ("test", "validation"):
        with suppress(UserError):
            predictions = run.predictions(split)
            return Judged(run, predictions, score_predictions(predictions, temperature=run.temperature))
    return None


def headline(run: Run, found: Judged | None) -> dict[str, Any]:
    """The result in one line, and what it is of."""
    trained = f"{title_of(run.recipe)} on {run.data['name']}, seed {run.recipe.seed}"
    if found is None:
        return {"title": trained, "result": None}
    scores = found.scores
    low, high = scores.interval95
    images = counted(scores.images, f"{scores.split} image") + of_groups(scores.groups)
    return {
        "title": trained,
        "result": f"{scores.accuracy:.2%}",
        "interval": f"95 % interval {low:.2%} to {high:.2%}",
        "about": f"accuracy on {images}, one view each, n = 1 run",
        "cards": [
            *tiles_beside_accuracy(scores),
            ("loss", f"{nats(scores.loss)} nats"),
            (calibration_title(run), f"{scores.calibration.error_after:.2%}"),
            ("training time", in_seconds(run.summary["train_seconds"])),
            ("test set opened", counted(run.test_openings, "time")),
        ],
    }


def tiles_beside_accuracy(scores: Scores) -> list[tuple[str, str]]:
    """Top-5 accuracy where it says something, else the mean F1; balanced accuracy and the mean F1 where classes are uneven."""
    top5 = "top-5 (95 % interval)", "{:.2%} ({:.2%} to {:.2%})".format(scores.top5, *scores.top5_interval95)
    balanced, f1 = f"{scores.balanced_accuracy:.2%}", ("macro F1", f"{scores.macro_f1:.4f}")
    tiles = [top5] if len(scores.classes) > 5 else [f1]
    if balanced != f"{scores.accuracy:.2%}":
        tiles += [("balanced accuracy", balanced), f1]
    return list(dict.fromkeys(tiles))


def calibration_title(run: Run) -> str:
    """What the tile's number is: the error at the temperature where one was fitted."""
    return f"calibration error at temperature {run.temperature:.2f}" if run.calibrated else "calibration error"


def recipe_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """Every field, with the named recipe's value where it differs."""
    base = differences(recipe, base_of(recipe))
    rows = []
    for name, value in vars(recipe).items():
        if name != "name":
            before = as_typed(base[name][1]) if name in base else None
            rows.append({"name": name, "value": as_typed(value) or "none", "changed": name in base, "before": before})
    return rows


def curves(run: Run) -> list[Picture]:
    """Accuracy, loss and learning rate by epoch, a picture each."""
    rows = run.metrics
    if not rows:
        raise UserError(f"{run.path} has no row in its metrics.jsonl; it was emptied after training")
    last = rows[-1]
    measured = last["validation_accuracy"]
    ends = f"; validation ends at {measured:.2%}" if measured is not None else ""
    over = counted(len(rows), "epoch")
    of = ", of the hardest images" if run.recipe.hardest < 1 else ""
    alts = {
        "accuracy": f"Accuracy over {over}; training ends at {last['train_accuracy']:.2%}{of}{ends}.",
        "loss": f"Loss over {over}; training ends at {last['train_loss']:.4f}{of}.",
        "learning rate": f"Learning rate over {over}.",
    }
    return [as_svg(curve(what, rows, run.recipe), alt) for what, alt in alts.items()]


def confusion(scores: Scores) -> dict[str, Any]:
    """The matrix as a picture and the most frequent mistakes as rows."""
    pairs = scores.most_confused(10)
    first = f" Most often {pairs[0][0]} is taken for {pairs[0][1]}, {pairs[0][2]} times." if pairs else ""
    alt = f"Confusion matrix of {len(scores.classes)} classes on {counted(scores.images, f'{scores.split} image')}.{first}"
    rows = [(shortened(name), shortened(other), f"{count:,}", f"{part:.1%}") for name, other, count, part in pairs]
    return {"figure": as_svg(judging.confusion_figure(scores), alt), "pairs": rows}


def class_rows(scores: Scores) -> list[dict[str, str]]:
    """Precision, recall with interval, F1 and support of each class, the worst recall first; "-" for what is not defined."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    rows = zip(
        scores.classes,
        scores.precision,
        scores.per_class,
        scores.per_class_interval95,
        scores.f1,
        scores.support,
        strict=True,
    )
    ordered = sorted(rows, key=lambda row: (row[2] is None, row[2] or 0))
    return [
        {
            "name": shortened(name),
            "precision": cell(precision),
            "recall": cell(recall),
            "interval": "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}",
            "f1": "-" if f1 is None else f"{f1:.3f}",
            "images": f"{images:,}",
        }
        for name, precision, recall, interval, f1, images in ordered
    ]


def calibration(found: Judged) -> dict[str, Any]:
    """Reliability before and after the temperature, the risk-coverage curve, and thresholds for being sure."""
    measured = found.scores.calibration
    logits, labels = found.predictions.logits.double(), found.predictions.labels
    before = confidence_and_hits(logits, labels)
    after = confidence_and_hits(logits / measured.temperature, labels)
    as_trained, scaled = (reliability(*answers, found.predictions.groups) for answers in (before, after))
    diagram = judging.reliability_figure(as_trained, scaled, measured.temperature)
    risk = judging.risk_figure(*risk_coverage(*after))
    return {
        "measured": measured,
        "same_images": found.predictions.split == "validation" and measured.temperature != 1,
        "diagram": as_svg(
            diagram,
            f"Accuracy by confidence. Expected calibration error {measured.error:.2%} as trained, "
            f"{measured.error_after:.2%} at temperature {measured.temperature:.2f}.",
        ),
        "risk": as_svg(risk, f"Errors among the surest images; {1 - found.scores.accuracy:.2%} when all are answered."),
        "thresholds": thresholds(found, after),
        "held_out": run_images(found.run),
    }


def thresholds(found: Judged, answers: tuple[Tensor, Tensor]) -> list[tuple[str, Threshold | None, int]]:
    """For each of `TARGETS`: the confidence that reaches it on validation images, and what it gives on those judged.

    Chosen on validation images as `predict --sure` does it, also where test images are judged; none where none are kept. The
    number is how many images it takes to show the target, where fewer were that sure; else 0.
    """
    try:
        kept = found.run.predictions("validation")
    except UserError:
        return []
    chosen_on = confidence_and_hits(kept.logits.double() / found.run.temperature, kept.labels)
    rows = []
    for target in TARGETS:
        chosen = threshold_for(*chosen_on, target, kept.groups)
        given = chosen and answers_from(*answers, chosen.confidence, target, found.predictions.groups)
        rows.append((f"{target:.0%}", given, chosen.lacking if chosen else 0))
    return rows


def run_images(run: Run) -> str:
    """`5,000 validation images`: those that temperature and thresholds were chosen on."""
    return counted(run.data["validation"], "validation image")


def robustness(run: Run) -> dict[str, Any] | None:
    """What was measured on corrupted images, or None."""
    measured = run.robustness
    if measured is None:
        return None
    alt = (
        f"Accuracy on {len(measured['rows'])} kinds of corruption at 5 levels: {measured['corrupted']:.2%} on the mean, "
        f"{measured['clean']:.2%} on clean images."
    )
    return {
        "measured": measured,
        "width": f"{100 * widest_half(measured['images'], measured.get('groups')):.1f}",
        "figure": as_svg(judging.robustness_figure(measured), alt),
    }


def mistakes(found: Judged, data: "Dataset", split: Split) -> dict[str, Any]:
    """The mistakes with the highest confidence, with maps for what was said and the nearest training images."""
    predictions = found.predictions
    probabilities = predictions.probabilities(found.run.temperature)
    confidence, guesses = probabilities.max(1)
    wrong = (guesses != predictions.labels).nonzero().flatten()
    chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MISTAKES]]
    if len(chosen) == 0:
        return {"rows": [], "wrong": 0}
    classifier = load_run(found.run)
    images, labels = split.take(chosen)
    options: dict[str, Any] = {"training": data.train, "temperature": found.run.temperature}
    explained = explain(classifier.model, images, guesses[chosen], classifier.backend, **options)
    names = data.files_of(predictions.split)
    files = [names[row] if names else "" for row in predictions.rows[chosen].tolist()]
    rows = [
        mistake(explanation, data.classes[label], data.classes, file)
        for explanation, label, file in zip(explained, labels.tolist(), files, strict=True)
    ]
    return {"rows": rows, "wrong": len(wrong), "searched": f"{min(SEARCHED, len(data.train)):,}"}


def mistake(explanation: Explanation, truth: str, classes: tuple[str, ...], file: str) -> dict[str, Any]:
    """One mistake as pictures and words, `file` being the image's name if it has one."""
    said, image = classes[explanation.target], explanation.image.numpy()
    return {
        "truth": truth,
        "said": said,
        "probability": f"{explanation.probability:.1%}",
        "file": file,
        "image": as_thumbnail(image, f"{truth} taken for {said}"),
        "covering": as_overlay(image, occlusion_overlay(explanation.occlusion), f"where covering costs {said} most"),
        "activation": as_overlay(image, explanation.activation.numpy(), f"class activation for {said}"),
        "neighbours": [
            {
                "picture": as_thumbnail(near.image.numpy(), f"training image of {classes[near.label]}"),
                "label": classes[near.label],
                "similarity": f"{near.similarity:.2f}",
                "agrees": near.label == explanation.target,
            }
            for near in explanation.neighbours
        ],
    }


def cost(run: Run, data: "Dataset | None") -> list[tuple[str, str]]:
    """Time, speed, memory and arithmetic."""
    summary = run.summary
    rows = [
        ("training and validation", in_seconds(summary["train_seconds"])),
        ("whole command", in_seconds(summary["wall_seconds"])),
        ("training images per second", f"{summary['images_per_second']:,.0f}"),
        ("peak memory", memory_in_words(summary)),
        ("parameters", f"{summary['parameters']:,}"),
    ]
    if data is not None:
        flops = training_flops(run.recipe, data)
        rows.append(("arithmetic of training", f"{flops / 1e12:,.2f} TFLOP (convolutions and matrix products)"))
    return rows


def memory_in_words(summary: dict[str, Any]) -> str:
    """`720 MB`; on a GPU with what its tensors took there."""
    of_gpu = summary.get("peak_gpu_memory_mb")
    return f"{summary['peak_memory_mb']:,.0f} MB" + (f", {of_gpu:,.0f} MB on the GPU" if of_gpu else "")


def data_section(run: Run, data: "Dataset | None") -> dict[str, Any]:
    """Counts, licence, and a few images of each class."""
    about = run.data
    rows = [
        ("name", about["name"]),
        ("images", f"{about['train']:,} training, {about['validation']:,} validation, {about['test']:,} test"),
        ("size", f"{about['image_size'][0]} x {about['image_size'][1]}, {'grey' if about['channels'] == 1 else 'RGB'}"),
        ("classes", f"{len(about['classes'])}"),
        ("licence", about.get("licence", "-")),
        ("fingerprint", about["fingerprint"]),
    ]
    rows += [(what, counted(len(about[what]), "file")) for what in ("broken", "ignored") if about.get(what)]
    if groups := about.get("groups"):
        shared = told_of_groups(about.get("shared_groups", {})) or ["none of them both trained on and held out"]
        rows.append(("groups", "; ".join([f"{groups:,} of training images", *shared])))
    if about.left_out:
        rows.append(
            ("left out", f"{counted(about['trained_without'], 'training image')} named by a list, see data.json")
        )
    hidden = len(about["classes"]) - SAMPLED_CLASSES
    more = f"{counted(hidden, 'more class', 'more classes')}" if hidden > 0 else ""
    return {"rows": rows, "samples": samples(data) if data is not None else [], "more": more}


def samples(data: "Dataset") -> list[dict[str, Any]]:
    """The first training images of each class, with how many it has."""
    labels = data.train.labels[data.train.rows]
    found = []
    for label, name in enumerate(data.classes[:SAMPLED_CLASSES]):
        members = (labels == label).nonzero().flatten()
        images, _ = data.train.take(members[:SAMPLES])
        pictures = [as_thumbnail(image.numpy(), f"training image of {name}") for image in images]
        found.append({"name": name, "images": f"{len(members):,}", "pictures": pictures})
    return found


def environment(run: Run) -> list[tuple[str, str]]:
    """Versions, hardware and settings, and whose weights it began with."""
    kept = (
        "thumbnet",
        "commit",
        "python",
        "torch",
        "numpy",
        "platform",
        "processor",
        "gpu",
        "device",
        "threads",
        "precision",
    )
    about = run.environment
    rows = [(name, as_typed(about[name])) for name in kept if about.get(name) not in (None, "")]
    for began in run.lineage:
        weights = f"SHA-256 of its weights {began['model_sha256']}"
        rows.append(("began with", f"{began['recipe']} on {began['dataset']}, {began['run']}, {weights}"))
    for changed in about.get("continued_with", []):
        rows.append(("continued with", ", ".join(f"{name} {value}" for name, value in changed.items())))
    return rows


def reproduce(run: Run) -> list[str]:
    """Commands that train and measure the run again."""
    config = shlex.quote(str(run.path / "recipe.toml"))
    about = run.environment
    machine = f"--device {about['device'].split(':')[0]} --precision {about['precision']} --threads {about['threads']}"
    folder = f" --image-size {run.data['image_size'][0]}" if run.data.on_pictures else ""
    folder += " --skip-broken" if run.data.get("broken") else ""
    for flag, fact in (("--group-by", "group_by"), ("--columns", "columns_named")):
        folder += f" {flag} {shlex.quote(run.data[fact])}" if fact in run.data else ""
    folder += "".join(f" --trust {shlex.quote(str(path))}" for path, _ in own_files(run))
    lines = [f"thumbnet train {shlex.quote(run.data.as_typed)} --config {config} {machine}{folder}"]
    if run.test_openings:
        lines.append(f"thumbnet evaluate {shlex.quote(str(run.path))} --split test")
    return lines


def own_files(run: Run) -> list[tuple[Path, str]]:
    """The Python files of the user's own that the recipe names, as the run folder keeps them, each with its text."""
    return kept_in(run.path / "code", run.recipe.own_code)


def split_of(found: Judged, data: "Dataset") -> Split | None:
    """The images that the predictions are of; the test images are looked at again, not measured, so nothing is counted.

    None where test images are no longer there.
    """
    if found.predictions.split == "test":
        return data.test.unlock() if data.test is not None else None
    assert data.validation is not None
    return data.validation


def data_or_reason(run: Run, data_dir: Path | None = None) -> "tuple[Dataset | None, str]":
    """The run's data, or None and why they cannot be shown. Raises `UserError` where a given `data_dir` does not hold them."""
    try:
        return run.check_data(run.load_data(data_dir=data_dir)), ""
    except UserError as error:
        if data_dir is not None:
            raise
        return None, first_line(error)


def same_images(found: Judged, split: Split, data: "Dataset") -> bool:
    """True where the predictions were made of just these images."""
    rows = split.rows.cpu()
    if found.predictions.split == "test" and found.predictions.fingerprint != data.fingerprint:
        return False
    return torch.equal(rows, found.predictions.rows) and torch.equal(split.labels.cpu()[rows], found.predictions.labels)


def in_seconds(seconds: float) -> str:
    """`18.3 s` below a minute, else `3:05`."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
