"""A run that begins with the weights of an earlier one, with a dense layer of its own where its classes are others."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.files import Fields, with_fields
from thumbnet.recipes import as_typed
from thumbnet.recipes.recipe import NETWORK, Recipe
from thumbnet.runs.data_record import DataRecord
from thumbnet.runs.run import Run
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.models.preprocessed import Preprocessed

HEAD = "head"  # what every architecture calls its dense layer
RECORD: Fields = {"run": str, "fingerprint": str, "held_out": dict, "began_with": (dict, type(None))}


def earlier_run(recipe: Recipe, data: Dataset) -> Run:
    """The finished run that `recipe.start_from` names, for data cut as the recipe says.

    Raises `UserError` where its images have other channels, or where it, or a run that it began with itself, was trained on
    images that are held out here: what it was told of them would be in the accuracy.
    """
    run = Run.open(recipe.start_from)
    run.require_finished()
    if run.data["channels"] != data.channels:
        raise UserError(
            f"{run.path} takes images of {counted(run.data['channels'], 'channel')}, and those of {data.name} have "
            f"{data.channels}; start from another run, or leave out --start-from"
        )
    here = DataRecord.of(data)
    for told in lineage(run):
        held_out_anew = data.own_validation is None and data.validation is not None and told["held_out"] != recipe.cut
        if held_out_anew and DataRecord(told).same_training_images(here):
            raise UserError(
                f"{told['run']} was trained on images of {data.name} that are held out here; {held_out_alike(told['held_out'])}"
            )
    return run


def lineage(run: Run) -> Iterator[dict[str, Any]]:
    """What is kept of a run, of the one that it began with, and so on."""
    told: dict[str, Any] | None = record_of(run)
    while told:
        yield told
        try:
            told = told["began_with"] and with_fields(told["began_with"], RECORD)
        except ValueError as error:
            raise UserError(f"{run.path} has a damaged environment.json: in began_with, {error}") from error


def held_out_alike(cut: dict[str, Any]) -> str:
    """What to type for the images that an earlier run held out to be held out again."""
    if cut.get("folds"):
        return f"hold the same ones out by --folds {cut['folds']} --fold {cut.get('fold')} --seed {cut.get('seed')}"
    if not cut.get("fraction"):
        return "it held none out, so train on all too, by --validation 0, or start from another run"
    return f"hold the same ones out by --validation {cut['fraction']:g} --seed {cut.get('seed')}"


@torch.no_grad()
def begin_with(model: "Preprocessed", run: Run, classes: tuple[str, ...]) -> None:
    """Give a network for `classes` the weights of a run, its normalisation and whitening among them.

    The dense layer keeps its own where the run's classes are others. Raises `UserError` where the network is another.
    """
    own, learned = model.state_dict(), run.model().state_dict()
    if run.classes != classes:
        learned = {name: tensor for name, tensor in learned.items() if HEAD not in name.split(".")}
    fits = all(name in own and own[name].shape == tensor.shape for name, tensor in learned.items())
    if not fits or len(learned) < len(own) - sum(HEAD in name.split(".") for name in own):
        raise UserError(f"{run.path} has another network; give the same by {network_as_typed(run.recipe)}")
    for name, tensor in learned.items():
        own[name].copy_(tensor)


def network_as_typed(recipe: Recipe) -> str:
    """`--model speednet_slim --widths 32 128 256`."""
    chosen = {name: as_typed(getattr(recipe, name)) for name in NETWORK if getattr(recipe, name)}
    return " ".join(f"--{name} {value}" for name, value in chosen.items())


def record_of(run: Run) -> dict[str, Any]:
    """What a run folder keeps of the run that it began with, and of those before."""
    return {
        "run": str(run.path),
        "recipe": run.recipe.name,
        "dataset": run.data.title,
        "model_sha256": run.summary.get("model_sha256"),
        "fingerprint": run.data["fingerprint"],
        "fingerprint_of_training": run.data.get("fingerprint_of_training"),
        "held_out": run.recipe.cut,
        "began_with": run.environment.get("began_with"),
    }


def origin(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """The same as environment.json has it; nothing where a run begins with weights of its own."""
    return {"began_with": record_of(earlier_run(recipe, data))} if recipe.start_from else {}


def told_of(run: Run, data: Dataset) -> str:
    """Which weights a run begins with; a warning where they may have seen what is held out here."""
    told = f"begins with the weights of {shlex.quote(str(run.path))}: {run.recipe.name} on {run.data.title}"
    here = DataRecord.of(data)
    if (
        run.data["location"] == here["location"]
        and not run.data.same_training_images(here)
        and data.own_validation is None
    ):
        return (
            f"{told}; note: {data.name} has changed since, so that images it was trained on may be held out here, and accuracy "
            "may look too good; a folder of validation images of its own avoids that"
        )
    return told
