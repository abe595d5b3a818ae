"""Examine a data set for faults, or this machine."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from thumbnet.cli.fitting import recipe_for
from thumbnet.cli.options import (
    Data,
    DataFlags,
    Json,
    MachineFlags,
    Machines,
    Whole,
    check_ending,
    check_writable,
    described,
    given,
    print_json,
    show,
)
from thumbnet.data.names import DECODING
from thumbnet.errors import Interrupted, UserError
from thumbnet.words import as_words, counted

# Flags; the others are of trainings.
OF_EVERY_EXAMINATION = ("output", "list", "data_dir", *DECODING, "offline")


@described
def doctor(
    dataset: str | None = None,
    /,
    *,
    labels: bool = False,
    resuming: bool = False,
    folds: Whole | None = None,
    recipe: str | None = None,
    output: Path | None = None,
    list: Path | None = None,
    runs: Path | None = None,
    machine: Machines = MachineFlags(),  # noqa: B008
    options: Data = DataFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Examine a data set for duplicates, leaks and other faults, with a gallery; without a name, this machine.

    Parameters
    ----------
    dataset
        a name from `thumbnet list datasets`, a folder of class folders, a .csv file that names images and their classes
        or has their pixels, an .npz file or a folder of IDX files
    labels
        look for wrong labels too: trains as many networks as there are folds
    resuming
        instead of all that: train a few steps of --recipe twice, one run killed and resumed, and compare their bits
    folds
        for --labels: parts of the training images, each judged by a network trained on the others; 4 if not given
    recipe
        for --labels and --resuming: what is trained; by default cifar10-83, cifar100-quick, mnist-99 or general
    output
        the gallery, doctor-NAME.html by default
    list
        write the faulty training images to this .csv file, one per row, to be read and then given to train --leave-out
    runs
        folder of the runs: runs/.doctor/NAME, where a stopped --labels goes on; for --resuming a temporary one
    """
    asked = {"labels": labels or None, "resuming": resuming or None, "folds": folds, "recipe": recipe, "output": output}
    asked |= {"list": list, "runs": runs}
    typed = {name: value for name, value in asked.items() if value is not None} | given(options)
    refuse_idle(dataset, typed, given(machine))
    if dataset is None:
        report_computer(given(machine), as_json=json)
        return

    from thumbnet.data.datasets import load_dataset
    from thumbnet.data.names import called_in_files, comes_as_pictures

    folds = 4 if folds is None else folds
    gallery = checked_gallery(dataset, folds, output, list)

    from thumbnet.doctor import examine_dataset
    from thumbnet.doctor.page import write_doctor_page
    from thumbnet.progress import reporter_for_terminal

    with reporter_for_terminal() as reporter:
        # Broken files are what it is asked for.
        broken = {"skip_broken": True} if comes_as_pictures(dataset) and not resuming else {}
        data = load_dataset(dataset, validation=0, progress=reporter.loading, **(broken | given(options)))
        if resuming:
            return report_resuming(dataset, data, recipe, runs, given(machine) | given(options), reporter, as_json=json)
        found = examine_dataset(data, reporter.loading)
        if labels:
            reporter.say(f"training {folds} networks, each asked about the images that it did not see")
            folder = runs or Path("runs/.doctor") / called_in_files(dataset)
            try:
                checked = look_for_wrong_labels(data, recipe, folder, folds, given(machine), reporter)
            except Interrupted as error:
                raise Interrupted("stopped by a signal; the same command goes on where it was") from error
            found = replace(found, labels=checked)
        page = write_doctor_page(data, found, gallery)
        listed = write_list(data, found, list) if list else 0
    flags = given(options) | ({"skip_broken": True} if found.broken else {})
    tell(dataset, found, page, list, listed, flags, as_json=json)


def checked_gallery(dataset: str, folds: int, output: Path | None, listed: Path | None) -> Path:
    """Where the gallery goes. Raises `UserError` for what cannot be, before anything takes time."""
    from thumbnet.data.names import called_in_files, check_dataset_name

    if folds < 2:
        raise UserError(f"folds is {folds}; give 2 or more, each judged by a network trained on the others")
    check_ending("output", output, ".html")
    check_ending("list", listed, ".csv")
    check_dataset_name(dataset)
    gallery = output or Path(f"doctor-{called_in_files(dataset)}.html")
    check_writable(gallery, listed)
    if listed is not None and listed.is_file() and listed.stat().st_size:
        raise UserError(
            f"{listed} is there already, and may have been read and changed; give another --list, or remove it"
        )
    return gallery


def tell(
    dataset: str, found: Any, page: Path, path: Path | None, listed: int, flags: dict[str, Any], *, as_json: bool
) -> None:
    """What was found, and where it was written: the gallery, and the list of so many images at `path` if one was asked for.

    `flags` are those that train needs to read the data as they were.
    """
    from thumbnet.doctor.dataset import findings

    told = findings(found)
    if as_json:
        faults = sum(grave == "fault" for grave, _ in told)
        written = {"list": str(path), "listed": listed} if path else {}
        print_json(found.to_dict() | {"findings": told, "faults": faults, "page": str(page)} | written)
        return
    show("\n".join([f"{grave:5}  {sentence}" for grave, sentence in told]))
    show(f"page   {page}")
    if path:
        show(f"list   {list_line(dataset, path, listed, flags)}")


def write_list(data: Any, found: Any, path: Path) -> int:
    """Write down the training images that better not be trained on; how many there are."""
    from thumbnet.doctor.listing import as_list, to_leave_out
    from thumbnet.files import write_text

    faults = to_leave_out(found)
    write_text(path, as_list(faults, data))
    return len(faults)


def list_line(dataset: str, path: Path, images: int, flags: dict[str, Any]) -> str:
    """What to do with the list."""
    if not images:
        return f"{path} names no image"
    words = [word for name, value in flags.items() for word in as_words(name, value)]
    train = shlex.join(["thumbnet", "train", dataset, *words, "--leave-out", str(path)])
    return f"{path} names {counted(images, 'training image')}; delete the rows of those to be kept, then: {train}"


def refuse_idle(dataset: str | None, typed: dict[str, Any], machine: dict[str, Any]) -> None:
    """Raise `UserError` for a flag that changes nothing, since what it is for was not asked for."""
    if dataset is None:
        idle = [*typed, *({"checkpoint_seconds"} & machine.keys())]
        if idle:
            flag = f"--{idle[0].replace('_', '-')}"
            raise UserError(f"{flag} is for data; name a data set or folder, or leave it out to examine this machine")
        return
    for name in (*typed, *machine):
        flag = f"--{name.replace('_', '-')}"
        if "resuming" in typed and name in ("labels", "folds", "output", "list", "checkpoint_seconds"):
            raise UserError(f"{flag} changes nothing with --resuming; leave one of them out")
        if name == "folds" and "labels" not in typed:
            raise UserError(f"{flag} is for --labels; give that too, or leave it out")
        if name not in OF_EVERY_EXAMINATION and not typed.keys() & {"labels", "resuming"}:
            raise UserError(f"{flag} is for --labels and --resuming, which train; give one of them, or leave it out")


def look_for_wrong_labels(data: Any, recipe: str | None, folder: Path, folds: int, machine: Any, reporter: Any) -> Any:
    """Suspect labels by networks trained on the other folds."""
    from dataclasses import replace

    from thumbnet.doctor import check_labels
    from thumbnet.machine import Machine
    from thumbnet.recipes import recipe as named_recipe

    options = {"machine": Machine(**machine), "tell": reporter.say}
    chosen = named_recipe(recipe or quick_for(data))
    if recipe is None:
        cut = replace(data, own_validation=None).with_validation(0, seed=chosen.seed, folds=folds)
        chosen = recipe_for(chosen, cut, {}, reporter)
    return check_labels(data, chosen, folder, folds=folds, **options)


def quick_for(data: Any) -> str:
    """The recipe that takes seconds, or at most two minutes."""
    return {"cifar10": "cifar10-83", "cifar100": "cifar100-quick", "mnist": "mnist-99"}.get(data.name, "general")


def report_resuming(
    dataset: str, data: Any, recipe: str | None, runs: Path | None, flags: Any, reporter: Any, *, as_json: bool
) -> None:
    """Kill and resume a short run of the recipe; other bits than those of an unbroken one end with exit code 1."""
    import dataclasses
    import shutil
    import tempfile

    from thumbnet.doctor import check_resuming
    from thumbnet.errors import TrainingFailed
    from thumbnet.recipes import recipe as named_recipe
    from thumbnet.training.preparation import check_fits

    chosen = named_recipe(recipe or quick_for(data))
    cut = data.with_validation(**chosen.cut)
    if recipe is None:
        chosen = recipe_for(chosen, cut, {}, reporter)
    check_fits(chosen, cut)
    words = [word for name, value in flags.items() for word in as_words(name, value)]
    folder = runs or Path(tempfile.mkdtemp(prefix="thumbnet-resuming-"))
    found = check_resuming(dataset, len(cut.train), chosen, folder, words, reporter.say)
    if runs is None and not found.differing:
        shutil.rmtree(folder, ignore_errors=True)  # where something differs it is the evidence
    if as_json:
        print_json(dataclasses.asdict(found))
    after = ", ".join(map(str, found.killed_after))
    if found.differing:
        raise TrainingFailed(
            f"{found.recipe}, killed after steps {after} of {found.steps} and resumed, differs from an unbroken run in "
            f"{' and '.join(found.differing)}: do not rely on --resume here, and please report it with {folder}"
        )
    if not as_json:
        show(f"ok     {found.recipe}, killed after steps {after} of {found.steps} and resumed, ends with the same bits")


def report_computer(machine: dict[str, Any], *, as_json: bool) -> None:
    """The machine's findings; a fault ends with exit code 1."""
    from thumbnet.doctor import examine_computer
    from thumbnet.errors import ThumbnetError
    from thumbnet.machine import Machine

    found = examine_computer(Machine(**machine))
    faults = sum(grave == "fault" for grave, _ in found)
    if as_json:
        print_json({"findings": found, "faults": faults})
    else:
        show("\n".join(f"{grave:5}  {sentence}" for grave, sentence in found))
    if faults:
        raise ThumbnetError(f"{counted(faults, 'fault')} found on this machine")
