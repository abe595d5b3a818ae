"""Campaigns: a recipe trained over seeds in fresh processes and measured inside one clock, as results/ records it."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thumbnet.data.datasets import load_dataset
from thumbnet.data.names import SPECS, comes_as_pictures
from thumbnet.errors import UserError
from thumbnet.files import write_json
from thumbnet.machine import Machine
from thumbnet.measuring.measured_run import InThisProcess, in_fresh_process, measured_before
from thumbnet.measuring.record import joined, record_to_add_to, record_to_replace, summary_of_campaign
from thumbnet.measuring.results import seconds_in_words
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes.recipe import OWN, Recipe, differences, vary
from thumbnet.runs.paths import is_free
from thumbnet.runs.run import Run
from thumbnet.words import as_words, counted

HOLDING_OUT = ("validation", "folds", "fold")  # fields that keep images from training
LOOKS_APART = 60.0  # seconds at least between two looks at what the machine can do


def run_campaign(
    name: str,
    dataset: str,
    seeds: Sequence[int],
    *,
    split: str = "test",
    folder: Path,
    data_dir: Path | None = None,
    decoding: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    changes: dict[str, Any] | None = None,
    resume: bool = False,
    one_process: bool = False,
    time_limit: float = math.inf,
    tell: Callable[[str], None] = lambda text: None,
    before_each: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train the named recipe once per seed, each in a process of its own, and give what results/ records.

    With `one_process` all are trained in this one, after a short one that warms up and is thrown away: on a GPU it records
    what the others replay. There is no cold wall then. `decoding` has what was given of `DECODING` for pictures.

    On `split` "test" each run trains on every training image and opens the test set once, which its run folder in `folder`
    counts; on "validation" it holds out what the recipe says (0.1 if it says nothing). With `resume`, runs of an interrupted
    campaign in `folder` are kept or continued. After the first, no seed is begun that would end more than `time_limit` seconds
    after the call, if it takes as long as the last one. `before_each` is called before each that is trained. Raises
    `UserError` for bad arguments, `TrainingFailed` where a run fails, `Interrupted` after a signal to stop.
    """
    changes, decoding, machine = changes or {}, decoding or {}, machine or Machine()
    began, took = time.monotonic(), 0.0
    recipe, places = planned(name, seeds, split, folder, changes)
    rows: list[dict[str, Any]] = []
    if not resume:
        refuse_taken(places, recipe)
    if split == "test" and dataset not in SPECS:
        check_has_test_images(dataset, decoding)
    measure = InThisProcess() if one_process else in_fresh_process
    for seed in seeds:
        if took and time.monotonic() - began + took > time_limit:
            tell(f"no time left for the other {counted(len(seeds) - len(rows), 'seed')}, from {seed} on")
            break
        order = {
            "recipe": name,
            "changes": {**changes, "validation": recipe.validation, "seed": seed},
            "dataset": dataset,
            "data_dir": str(data_dir) if data_dir else None,
            "decoding": dict(decoding),
            "split": split,
            "out": str(places[seed]),
            "machine": vars(machine),
            "resume": resume,
        }
        before = measured_before(order) if resume else None
        at = time.monotonic()
        if not before:
            before_each()
        row = before or measure(order)
        took = took if before else time.monotonic() - at
        rows.append(row)
        single = f", {row['accuracy_1_view']:.2%} with one" if row["views"] > 1 else ""
        cold = "" if row["cold_wall"] is None else f", cold wall {row['cold_wall']:.1f} s"
        reached = f"{split} accuracy {row['accuracy']:.2%} with {counted(row['views'], 'view')}{single}"
        kept = ", as measured before" if before else ""
        tell(f"seed {seed}: {reached}; train clock {seconds_in_words(row['train_clock'])}{cold}{kept}")
    command = command_of(
        recipe, dataset, split, seeds[: len(rows)], changes, machine, decoding, one_process=one_process
    )
    return {"command": command, **summary_of_campaign(recipe, dataset, split, rows, changes), **decoding}


def planned(
    name: str, seeds: Sequence[int], split: str, folder: Path, changes: dict[str, Any]
) -> tuple[Recipe, dict[int, Path]]:
    """The recipe of a campaign but for the seed, and the run folder of each seed.

    Raises `UserError` where the changes hold images out that are to be trained on, or leave some out.
    """
    if changes.get("leave_out"):
        raise UserError(
            "leave_out is for your own runs, and bench measures recipes; train with --seeds, then evaluate them"
        )
    if split == "test" and (held := [field for field in HOLDING_OUT if changes.get(field)]):
        raise UserError(f"{held[0]} holds images out, and on the test split all are trained on; use --split validation")
    recipe = vary(named_recipe(name), **changes)
    recipe = vary(recipe, validation=0.0 if split == "test" else recipe.validation or 0.1)
    return recipe, {seed: folder / f"{name}-s{seed}" for seed in seeds}


def check_has_test_images(dataset: str, decoding: Mapping[str, Any]) -> None:
    """Raise `UserError`, before anything is trained, where a path has no test images to measure on."""
    from thumbnet.judging.evaluation import no_test_split

    if load_dataset(dataset, validation=0, **decoding).test is None:
        missing = no_test_split(dataset, on_pictures=comes_as_pictures(dataset))
        raise UserError(f"{missing}, or measure on held-out images by --split validation")


def refuse_taken(places: Mapping[int, Path], recipe: Recipe) -> None:
    """Raise `UserError` where something is in a seed's place; `--resume` is named where it is a run of this very recipe."""
    for seed, path in places.items():
        if is_free(path):
            continue
        same = False
        with suppress(UserError):  # not a run, or one that cannot be read
            same = Run.open(path).recipe == vary(recipe, seed=seed)
        if same:
            raise UserError(
                f"{path} is there already; if its campaign was this one, go on by --resume, else give another --runs"
            )
        raise UserError(f"{path} is there already, and no run of this recipe with these changes; give another --runs")


def measured_campaign(
    name: str,
    dataset: str,
    seeds: Sequence[int],
    *,
    out: Path | None = None,
    add: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> dict[str, Any]:
    """`run_campaign`, with what the machine can do at best meanwhile; written to `out`/<recipe>.json where `out` is given.

    With `add` the seeds of the record that is there are kept, and these are added to them. Raises `UserError` before anything
    is trained where the record there is of another campaign.
    """
    from thumbnet.measuring.operations import training_flops

    options["changes"] = effective_changes(name, options.get("changes") or {})
    before = None if out is None else record_before(out, name, dataset, seeds, add=add, **options)
    ceilings = Ceilings(options.get("machine") or Machine())
    # A GPU is left to the runs in processes of their own: what this one computes there holds some of its memory.
    meanwhile = ceilings.look if ceilings.on_cpu or options.get("one_process") else lambda: None
    record = run_campaign(name, dataset, seeds, tell=tell, before_each=meanwhile, **options)
    ceilings.look(anyway=True)
    training = statistics.median(row["train_clock"] - row["evaluation_seconds"] for row in record["runs"])
    if add and out:  # as it is now: another sitting may have ended meanwhile
        before = record_before(out, name, dataset, seeds, add=add, **options)
        record = joined(before, record) if before else record
    recipe = vary(named_recipe(name), **{**record["changes"], "validation": record["validation"]})
    data = load_dataset(dataset, data_dir=options.get("data_dir"), validation=0, **(options.get("decoding") or {}))
    flops = training_flops(recipe, data.with_validation(**recipe.cut))
    ceiling = statistics.median(ceilings.seen)
    record |= {
        "training_flops": flops,
        "flops_per_second": round(flops / training),
        "ceiling_flops_per_second": round(ceiling),
        "ceilings_flops_per_second": [round(seen) for seen in ceilings.seen],
        "part_of_ceiling": round(flops / training / ceiling, 3),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{name}.json", record)
        if before:
            changed = "now has" if add else "is replaced; it had"
            tell(f"{out / f'{name}.json'} {changed} {counted((record if add else before)['n'], 'seed')}")
    return record


class Ceilings:
    """What the machine can do at best, seen again and again: a virtual one drifts by a quarter within the hour."""

    def __init__(self, machine: Machine):
        self.machine, self.looked = machine, -math.inf
        self.seen: list[float] = []  # FLOP/s

    @property
    def on_cpu(self) -> bool:
        from thumbnet.backend import prepare

        return prepare(self.machine).device.type == "cpu"

    def look(self, *, anyway: bool = False) -> None:
        """Measure it, which takes two seconds; not where that was less than `LOOKS_APART` ago, but for `anyway`."""
        from thumbnet.measuring.operations import convolution_ceiling

        if anyway or time.monotonic() >= self.looked + LOOKS_APART:
            self.seen.append(convolution_ceiling(self.machine))
            self.looked = time.monotonic()


def record_before(
    out: Path, name: str, dataset: str, seeds: Sequence[int], *, add: bool, **options: Any
) -> dict[str, Any] | None:
    """The record in `out` that a campaign will replace or be added to, or None. Raises `UserError` where it may not."""
    path, split = out / f"{name}.json", options.get("split", "test")
    changes, decoding = options.get("changes") or {}, options.get("decoding") or {}
    if add:
        machine, one_process = options.get("machine") or Machine(), options.get("one_process", False)
        return record_to_add_to(path, dataset, split, seeds, changes, machine, decoding, one_process=one_process)
    return record_to_replace(path, dataset, split, seeds, changes, decoding)


def effective_changes(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Those that are not as the named recipe has them anyway, and what follows from them, as another model's own widths."""
    made = named_recipe(name, **changes)
    changes = changes | {
        field: getattr(made, field) for field in OWN if field in changes
    }  # a file by its text, not its place
    differing = differences(made, named_recipe(name))
    typed = {field: changes[field] for field in changes if field in differing}
    return typed | {field: now for field, (now, _) in differing.items() if field not in typed}


def command_of(
    recipe: Recipe,
    dataset: str,
    split: str,
    seeds: Sequence[int],
    changes: dict[str, Any],
    machine: Machine,
    decoding: Mapping[str, Any] | None = None,
    *,
    one_process: bool,
) -> list[str]:
    """The command that repeats a campaign, without where its files lay."""
    words = [
        "thumbnet",
        "bench",
        recipe.name,
        "--seeds",
        str(len(seeds)),
        "--first-seed",
        str(seeds[0]),
        "--split",
        split,
    ]
    if dataset != dataset_of(recipe.name):
        words += ["--dataset", dataset]
    words += [word for name, value in (decoding or {}).items() for word in as_words(name, value)]
    if one_process:
        words.append("--one-process")
    asked = {name: value for name, value in vars(machine).items() if value != getattr(Machine(), name)}
    for name, value in {**changes, **asked}.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value != ():  # which follows from the model
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def dataset_of(name: str) -> str:
    """The data set a recipe is named after: `cifar10` for cifar10-94; fashion-mini where it is named after none."""
    return next((dataset for dataset in SPECS if name.startswith(f"{dataset}-")), "fashion-mini")
