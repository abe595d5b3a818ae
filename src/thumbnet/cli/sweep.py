"""A search for better values of recipe fields."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.options import (
    Decoding,
    DecodingFlags,
    Json,
    MachineFlags,
    Machines,
    Whole,
    check_positive,
    described,
    given,
    note,
    print_json,
    show,
)
from thumbnet.errors import UserError
from thumbnet.words import as_words, counted, duration

if TYPE_CHECKING:
    from thumbnet.judging.comparison import Comparison
    from thumbnet.machine import Machine
    from thumbnet.studies.sweep import Found, Sweep


@described
def sweep(
    file: Path,
    /,
    *,
    out: Path | None = None,
    jobs: Whole = 1,
    trials: Whole | None = None,
    seeds: Whole | None = None,
    plan: bool = False,
    data_dir: Path | None = None,
    decoding: Decoding = DecodingFlags(),  # noqa: B008
    machine: Machines = MachineFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Search for better values of recipe fields, then train the best and the recipe as it is on fresh seeds and compare them.

    Parameters
    ----------
    file
        a TOML file with a table [search] (docs/sweep.md has one)
    out
        the sweep's folder, sweeps/NAME by default; called again, it goes on where it stopped
    jobs
        this many trials at a time; each gets its share of the processor's cores
    trials
        how many, instead of what the file says
    seeds
        fresh seeds for the best trial and the baseline, instead of what the file says
    plan
        print how long it would take, and train nothing
    data_dir
        folder with the published files; else THUMBNET_DATA, else downloaded
    """
    check_positive(jobs=jobs, trials=trials, seeds=seeds)
    from thumbnet.machine import Machine
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.studies.sweep import at_work, run_sweep
    from thumbnet.studies.sweep_file import read_sweep

    if not file.is_file():
        raise UserError(f"there is no sweep file {file}; give a TOML file with a table [search]")
    chosen = read_sweep(file, trials=trials, seeds=seeds, tell=note, **given(decoding))
    on = Machine(**given(machine))
    folder = out or Path("sweeps") / chosen.name
    with reporter_for_terminal() as reporter:
        if plan:
            told = cost_of(chosen, on, data_dir)
            print_json({"runs": told[0], "seconds": told[1]}) if json else show(cost_line(chosen, *told))
            return
        options: dict[str, Any] = {"jobs": jobs, "machine": on, "data_dir": data_dir, "tell": reporter.say}
        with at_work(folder):
            found = run_sweep(chosen, folder, **options)
            comparison = on_fresh_seeds(chosen, found, folder, options)
    if json:
        print_json(
            {"sweep": chosen.name, "folder": str(folder), **outcome_as_object(folder, chosen, found, comparison)}
        )
    else:
        show("\n".join([*outcome(chosen, found, comparison), *places(folder, chosen, found, comparison)]))


def cost_of(sweep: "Sweep", machine: "Machine", data_dir: Path | None) -> tuple[int, float | str]:
    """How many runs, and their seconds by the recipe as it is; the reason where they cannot be told."""
    from thumbnet.studies.study import Study, estimated_seconds

    runs = sweep.trials + 2 * sweep.seeds
    study = Study(sweep.name, (sweep.variant("baseline", sweep.recipe),), seeds=(0,))
    each = estimated_seconds(study, machine=machine, data_dir=data_dir)["baseline"]
    return runs, each if isinstance(each, str) else runs * each


def cost_line(sweep: "Sweep", runs: int, seconds: float | str) -> str:
    """For people."""
    parts = f"{counted(sweep.trials, 'trial')} and 2 x {counted(sweep.seeds, 'fresh seed')}: {counted(runs, 'run')}"
    if isinstance(seconds, str):
        return f"{parts}, time not known: {seconds}"
    return f"{parts}, about {duration(seconds)} on this machine, one at a time, if all take as long as the baseline"


def on_fresh_seeds(sweep: "Sweep", found: "Found", folder: Path, options: dict[str, Any]) -> "Comparison | None":
    """The best and the recipe as it is on fresh seeds, with their page; None where they are the same."""
    from thumbnet.plots.groups import sweep_figure
    from thumbnet.plots.style import save
    from thumbnet.report import write_study_report
    from thumbnet.studies.study import judge_study, looks_before, run_study, write_study
    from thumbnet.studies.sweep import Range, changed_fields, looked_at_before, place_of, values_by_field, write_sweep

    known = [row.number for row in found.trials if row.value is not None]
    ranges = {name: (it.low, it.high, it.log) for name, it in sweep.space.items() if isinstance(it, Range)}
    best = known.index(found.best.number)
    save(sweep_figure(values_by_field(found), best, sweep.metric, ranges), folder / "trials.png")
    comparison = None
    if changed_fields(sweep, found):
        earlier, place = looked_at_before(folder, found), place_of(folder, found)
        study = sweep.on_fresh_seeds(found.best, found.recipe, len(found.trials), earlier)
        done = run_study(study, place, **options)
        [comparison] = comparisons = judge_study(study, done, looks_before(place))
        write_study(study, place, comparisons, done)
        write_study_report(study, comparisons, done, place / "study.html")
    write_sweep(sweep, folder, found, comparison)
    return comparison


def outcome(sweep: "Sweep", found: "Found", comparison: "Comparison | None") -> list[str]:
    """The best, what mattered, and what may be said of it."""
    from thumbnet.cli.compare import lines
    from thumbnet.studies.sweep import changed_fields, in_words, shown

    assert found.best.value is not None
    failed = sum(row.value is None for row in found.trials)
    different = len({tuple(row.changes.items()) for row in found.trials})
    about = [f"{different} different"] if different < len(found.trials) else []
    about += [f"{failed} failed"] if failed else []
    told = f"best of {counted(len(found.trials), 'trial')}" + (f" ({', '.join(about)})" if about else "")
    text = [f"{told}: trial {found.best.number}, {shown(found.best.value, sweep.metric)}, optimistic: the best of many"]
    if found.importance:
        text.append("what mattered: " + ", ".join(f"{name} {part:.0%}" for name, part in found.importance.items()))
    if comparison is None:
        return [*text, "it is the baseline: nothing better was found, so nothing is tried on fresh seeds"]
    return [*text, f"it changes: {in_words(changed_fields(sweep, found))}", "", *lines(comparison), ""]


def outcome_as_object(folder: Path, sweep: "Sweep", found: "Found", comparison: "Comparison | None") -> dict[str, Any]:
    """The same for programs."""
    from thumbnet.studies.sweep import changed_fields, looked_at_before

    best = {"trial": found.best.number, "value": found.best.value, "changes": changed_fields(sweep, found)}
    fresh = {"fresh_seeds": comparison and comparison.to_dict(), "looked_at_before": looked_at_before(folder, found)}
    return {"trials": len(found.trials), "best": best, "importance": dict(found.importance), **fresh}


def is_better(comparison: "Comparison") -> bool:
    """Whether it may be claimed of the best, the second of the two."""
    [pair] = comparison.pairs
    if pair.difference is None or not pair.claimed:
        return False
    return pair.difference.estimate < 0 if comparison.metric == "loss" else pair.difference.estimate > 0


def places(folder: Path, sweep: "Sweep", found: "Found", comparison: "Comparison | None") -> list[str]:
    """Where what was made lies."""
    from thumbnet.studies.sweep import looked_at_before, place_of

    shown = "" if comparison and is_better(comparison) else ", not shown to be better"
    decoding = [word for name, value in sweep.decoding.items() for word in as_words(name, value)]
    command = shlex.join(["thumbnet", "train", sweep.dataset, "--config", str(folder / "best.toml"), *decoding])
    page = [f"page    {place_of(folder, found) / 'study.html'}"] if comparison else []
    if earlier := looked_at_before(folder, found):
        page.append(f"note    looked at before: {', '.join(earlier)}; each look is one more chance to be wrong")
    recipe = [f"recipe  {folder / 'best.toml'}{shown}  ({command})"] if comparison else []
    return [*recipe, f"trials  {folder / 'trials.png'}", *page]
