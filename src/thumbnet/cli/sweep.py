"""A search for better values of recipe fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.options import Json, MachineFlags, Machines, Whole, check_positive, described, given, print_json
from thumbnet.errors import UserError
from thumbnet.words import counted, duration

if TYPE_CHECKING:
    from thumbnet.comparison import Comparison
    from thumbnet.machine import Machine
    from thumbnet.progress import Reporter
    from thumbnet.sweep import Found, Sweep


@described
def sweep(
    file: Path,
    /,
    *,
    out: Path | None = None,
    jobs: Whole = 1,
    plan: bool = False,
    data_dir: Path | None = None,
    machine: Machines = MachineFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Search values of recipe fields, then train the best and the recipe as it is on fresh seeds and compare them.

    Parameters
    ----------
    file
        a TOML file with a table [search] (docs/sweep.md has one)
    out
        the sweep's folder, sweeps/NAME by default; called again, it goes on where it stopped
    jobs
        so many trials at a time; each gets its part of the processor's cores
    plan
        tell how long it would take, and train nothing
    data_dir
        folder with the published files; else THUMBNET_DATA, else downloaded
    """
    check_positive(jobs=jobs)
    from thumbnet.machine import Machine
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.sweep import read_sweep, run_sweep

    if not file.is_file():
        raise UserError(f"there is no sweep file {file}; give a TOML file with a table [search]")
    chosen, on = read_sweep(file), Machine(**given(machine))
    folder = out or Path("sweeps") / chosen.name
    with reporter_for_terminal() as reporter:
        if plan:
            told = cost_of(chosen, on, data_dir)
            print_json({"runs": told[0], "seconds": told[1]}) if json else print(cost_line(chosen, *told))
            return
        options: dict[str, Any] = {"jobs": jobs, "machine": on, "data_dir": data_dir, "tell": reporter.say}
        found = run_sweep(chosen, folder, **options)
        comparison = confirm(chosen, found, folder, options, reporter)
    if json:
        print_json({"sweep": chosen.name, "folder": str(folder), **outcome_as_object(chosen, found, comparison)})
    else:
        print("\n".join([*outcome(chosen, found, comparison), *places(folder, chosen, found, comparison)]))


def cost_of(sweep: "Sweep", machine: "Machine", data_dir: Path | None) -> tuple[int, float | str]:
    """How many runs, and their seconds by the recipe as it is; the reason where they cannot be told."""
    from thumbnet.study import estimated_seconds

    runs = sweep.trials + 2 * sweep.seeds
    study = sweep.confirming(sweep.recipe)
    each = estimated_seconds(study, machine=machine, data_dir=data_dir)["as it is"]
    return runs, each if isinstance(each, str) else runs * each


def cost_line(sweep: "Sweep", runs: int, seconds: float | str) -> str:
    """For people."""
    parts = f"{counted(sweep.trials, 'trial')} and 2 x {counted(sweep.seeds, 'fresh seed')}: {counted(runs, 'run')}"
    if isinstance(seconds, str):
        return f"{parts}, time not known: {seconds}"
    return (
        f"{parts}, about {duration(seconds)} on this machine, one at a time, if all take as long as the recipe as it is"
    )


def confirm(
    sweep: "Sweep", found: "Found", folder: Path, options: dict[str, Any], reporter: "Reporter"
) -> "Comparison | None":
    """The best and the recipe as it is on fresh seeds, with their page; None where they are the same."""
    from thumbnet.plots import save, sweep_figure
    from thumbnet.report import write_study_report
    from thumbnet.study import judge_study, looks_before, run_study, write_study
    from thumbnet.sweep import Range, changed_fields, values_by_field, write_sweep

    known = [row.number for row in found.trials if row.value is not None]
    by_factors = [name for name, tried in sweep.space.items() if isinstance(tried, Range) and tried.log]
    best = known.index(found.best.number)
    save(sweep_figure(values_by_field(found), best, sweep.metric, by_factors=by_factors), folder / "trials.png")
    comparison = None
    if changed_fields(sweep, found):
        study, place = sweep.confirming(found.recipe), place_of(folder, found)
        done = run_study(study, place, **options)
        [comparison] = comparisons = judge_study(study, done, looks_before(place))
        write_study(study, place, comparisons, done)
        write_study_report(study, comparisons, done, place / "study.html")
    write_sweep(sweep, folder, found, comparison)
    return comparison


def outcome(sweep: "Sweep", found: "Found", comparison: "Comparison | None") -> list[str]:
    """The best, what mattered, and what may be said of it."""
    from thumbnet.cli.compare import lines
    from thumbnet.sweep import changed_fields, in_words, shown

    assert found.best.value is not None
    failed = sum(row.value is None for row in found.trials)
    text = [f"best of {counted(len(found.trials), 'trial')}" + (f" ({failed} failed)" if failed else "")]
    text[0] += f": trial {found.best.number}, {shown(found.best.value, sweep.metric)}, which being chosen flatters"
    if found.importance:
        text.append("what mattered: " + ", ".join(f"{name} {part:.0%}" for name, part in found.importance.items()))
    if comparison is None:
        return [*text, "nothing better than the recipe as it is was found"]
    return [*text, f"it changes: {in_words(changed_fields(sweep, found))}", "", *lines(comparison), ""]


def outcome_as_object(sweep: "Sweep", found: "Found", comparison: "Comparison | None") -> dict[str, Any]:
    """The same for programs."""
    from thumbnet.sweep import changed_fields

    best = {"trial": found.best.number, "value": found.best.value, "changes": changed_fields(sweep, found)}
    confirmed = comparison and comparison.to_json()
    return {"trials": len(found.trials), "best": best, "importance": dict(found.importance), "confirmed": confirmed}


def place_of(folder: Path, found: "Found") -> Path:
    """Where the best is confirmed."""
    return folder / "confirmed" / f"trial-{found.best.number}"


def places(folder: Path, sweep: "Sweep", found: "Found", comparison: "Comparison | None") -> list[str]:
    """Where what was made lies."""
    place = place_of(folder, found)
    page = [f"page    {place / 'study.html'}"] if comparison else []
    earlier = sorted(path.name for path in (folder / "confirmed").glob("trial-*") if path != place)
    if earlier:
        was = f"{', '.join(earlier)} was confirmed before, when it was the best"
        page.append(f"note    {was}; each such look is a chance more to be wrong")
    return [
        f"recipe  {folder / 'best.toml'}  (thumbnet train {sweep.dataset} --config {folder / 'best.toml'})",
        f"trials  {folder / 'trials.png'}",
        *page,
    ]
