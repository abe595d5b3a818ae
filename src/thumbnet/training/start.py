"""A run that begins with the weights of an earlier one, with a dense layer of its own where its classes are others."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from thumbnet.data.datasets import Dataset
from thumbnet.errors import UserError
from thumbnet.own_code import is_own
from thumbnet.reading import sha256_of
from thumbnet.recipes import as_typed
from thumbnet.recipes.recipe import NETWORK, Recipe
from thumbnet.runs.data_record import DataRecord
from thumbnet.runs.run import Run
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.models.preprocessed import Preprocessed

HEAD = "head"  # what every architecture calls its dense layer


def earlier_run(recipe: Recipe, data: Dataset) -> Run:
    """The finished run that `recipe.start_from` names, for data cut as the recipe says.

    Raises `UserError` where its images have other channels, or where it, or a run that it began with itself, was trained on
    images that are held out here: what it was told of them would be in the accuracy.
    """
    try:
        run = Run.open(recipe.start_from)
        run.require_finished()
    except UserError as error:
        raise UserError(f"the run to start from: {error}") from error
    if run.data["channels"] != data.channels:
        raise UserError(
            f"{run.path} takes images of {counted(run.data['channels'], 'channel')}, and those of {data.name} have "
            f"{data.channels}; start from another run, or leave out --start-from"
        )
    if data.validation is None or data.own_validation is not None:
        return run
    here = DataRecord.of(data)
    for told in (record_of(run), *run.lineage):
        then, now = effective(told["held_out"], data), effective(recipe.cut | here.cut, data)
        if DataRecord(told).same_training_images(here) and then != now:
            alike = held_out_alike(told["held_out"], data)
            raise UserError(f"{told['run']} was trained on images of {data.name} that are held out here; {alike}")
    return run


def check_beginning(recipe: Recipe, data: Dataset) -> None:
    """Raise `UserError` where what a recipe refers to does not fit the data: the run to start from, images to leave out."""
    if recipe.start_from or recipe.leave_out:
        cut = data.with_validation(**recipe.cut)
        if recipe.start_from:
            earlier_run(recipe, cut)


def effective(cut: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """What decides which images of `data` are held out."""
    found = {name: cut[name] for name in (("seed", "folds", "fold") if cut["folds"] else ("seed", "fraction"))}
    return found | ({"copies_together": bool(cut.get("copies_together"))} if data.together is not None else {})


def held_out_alike(cut: dict[str, Any], data: Dataset) -> str:
    """What to type for the images that an earlier run held out to be held out again."""
    if data.together is not None and not cut.get("copies_together"):
        return "equal images were not yet held out together then, so train it again, or start from another run"
    if cut["folds"]:
        return f"hold the same ones out by --folds {cut['folds']} --fold {cut['fold']} --seed {cut['seed']}"
    if not cut["fraction"]:
        return "it held none out, so train on all too, by --validation 0, or start from another run"
    return f"hold the same ones out by --validation {cut['fraction']:g} --seed {cut['seed']}"


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
        fields = (*NETWORK, "own") if is_own(run.recipe.model) else NETWORK
        network = ", ".join(f"{name} {as_typed(getattr(run.recipe, name)) or 'left open'}" for name in fields)
        raise UserError(
            f"{run.path} has another network: {network}; give the same, or leave that out of the command line"
        )
    for name, tensor in learned.items():
        own[name].copy_(tensor)


def record_of(run: Run) -> dict[str, Any]:
    """What a run folder keeps of the run that it began with, and of those before."""
    return {
        "run": str(run.path),
        "recipe": run.recipe.name,
        "dataset": run.data.title,
        "model_sha256": run.summary.get("model_sha256"),
        "fingerprint": run.data["fingerprint"],
        "fingerprint_of_training": run.data.get("fingerprint_of_training"),
        "location": run.data["location"],
        "held_out": run.held_out,
        "began_with": run.environment.get("began_with"),
    }


def origin(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """What environment.json keeps of the run that a run begins with, and of its list of images to leave out."""
    told: dict[str, Any] = {"began_with": record_of(earlier_run(recipe, data))} if recipe.start_from else {}
    there = recipe.leave_out and Path(recipe.leave_out).is_file()  # it may be gone when a run is resumed
    return told | ({"leave_out_sha256": sha256_of(Path(recipe.leave_out))} if there else {})


def check_same_origin(run: Run, about: dict[str, Any]) -> None:
    """Raise `UserError` where the weights that a run began with are others now than when it was begun."""
    then, now = run.environment.get("began_with"), about.get("began_with")
    if then and now and then.get("model_sha256") != now["model_sha256"]:
        raise UserError(
            f"{now['run']} has other weights than when {run.path} began with them; begin another run, by another --out"
        )


def told_of(run: Run, data: Dataset) -> str:
    """Which weights a run begins with; a warning where they may have seen what is held out here."""
    told = f"begins with the weights of {shlex.quote(str(run.path))}: {run.recipe.name} on {run.data.title}"
    here = DataRecord.of(data)
    others = [past for past in (record_of(run), *run.lineage) if not DataRecord(past).same_training_images(here)]
    same_place = any(past["location"] == here["location"] for past in others)
    same_names = not run.data.same_training_images(here) and set(run.classes) & set(data.classes)
    if data.validation is not None and (same_place or same_names):
        told += (
            f"; note: {data.name} may have images that it was trained on (its place or names of classes are the same); "
            "if such are held out here, accuracy looks too good"
        )
    return told
