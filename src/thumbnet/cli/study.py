"""An ablation as one command."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from thumbnet.words import counted, duration

if TYPE_CHECKING:
    from thumbnet.judging.comparison import Comparison
    from thumbnet.studies.cells import Cell
    from thumbnet.studies.study import Study


@described
def study(
    study: str,
    /,
    *,
    out: Path | None = None,
    jobs: Whole = 1,
    plan: bool = False,
    scale: float | None = None,
    seeds: Whole | None = None,
    only: Literal["cifar10", "cifar100"] | None = None,
    data_dir: Path | None = None,
    decoding: Decoding = DecodingFlags(),  # noqa: B008
    machine: Machines = MachineFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Train variants of a recipe over seeds and write the page that compares them.

    Parameters
    ----------
    study
        a TOML file (docs/study.md has one), or classic: every experiment of the original report
    out
        the study's folder, studies/NAME by default; called again, it goes on where it stopped
    jobs
        this many runs at a time; each gets its share of the processor's cores
    plan
        print what would be trained and how long it would take, and train nothing
    scale
        classic: fraction of the original 160 epochs, as in 0.05
    seeds
        runs of each row, instead of what the file says
    only
        classic: the rows of one data set
    data_dir
        folder with the published files; else THUMBNET_DATA, else downloaded
    """
    check_positive(jobs=jobs, seeds=seeds)
    chosen = study_named(study, scale, seeds, only, given(decoding))
    folder = out or Path("studies") / chosen.name
    if plan:
        from thumbnet.studies.study import other_plan

        differs = other_plan(chosen, folder)
        seconds = estimated(chosen, data_dir, given(machine))
        if json:
            print_json(chosen.plan() | {"seconds_of_a_run": seconds})
        else:
            left = chosen.cells() if differs else chosen.unfinished(folder)
            show("\n".join([*plan_lines(chosen, seconds), cost_line(chosen, left, seconds, jobs)]))
        if differs:
            note(f"{folder} holds another plan: {differs}; give another --out")
        return

    from thumbnet.machine import Machine
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.report import write_study_report
    from thumbnet.studies.study import judge_study, looks_before, run_study, write_study

    with reporter_for_terminal() as reporter:
        on = Machine(**given(machine))
        done = run_study(chosen, folder, jobs=jobs, machine=on, data_dir=data_dir, tell=reporter.say)
        comparisons = judge_study(chosen, done, looks_before(folder))
        write_study(chosen, folder, comparisons, done)
        page = write_study_report(chosen, comparisons, done, folder / "study.html")
    if json:
        found: dict[str, Any] = {"study": chosen.name, "folder": str(folder), "report": str(page)}
        print_json(found | {"comparisons": [comparison.to_dict() for comparison in comparisons]})
    else:
        show("\n".join([*outcome(comparisons), f"folder  {folder}", f"page    {page}"]))


def study_named(
    name: str, scale: float | None, seeds: int | None, only: str | None, decoding: dict[str, Any]
) -> "Study":
    """The study of a file, or the report's."""
    from thumbnet.data.names import decoding_of
    from thumbnet.studies.classic import classic_study
    from thumbnet.studies.study_file import read_study

    options = {"--scale": scale, "--only": only}
    if name == "classic":
        decoding_of(decoding, [])  # of published sets
        return classic_study(scale=1 if scale is None else scale, seeds=1 if seeds is None else seeds, only=only)
    if wrong := [option for option, value in options.items() if value is not None]:
        raise UserError(f"{wrong[0]} is for thumbnet study classic; a study file sets this itself")
    if not Path(name).is_file():
        meant = "did you mean 'classic'? Else " if difflib.get_close_matches(name, ["classic"], cutoff=0.8) else ""
        raise UserError(
            f"there is no study file {name}; {meant}give a TOML file, or classic for the report's experiments"
        )
    return read_study(Path(name), seeds=seeds, tell=note, **decoding)


def plan_lines(study: "Study", seconds: dict[str, float | str]) -> list[str]:
    """What would be trained and how long a run of each variant takes, for people."""
    cells = study.cells()
    width = max(len(variant.name) for variant in study.variants)
    parts = [counted(len(study.variants), "variant"), counted(len(study.seeds), "seed")]
    parts += [counted(study.folds, "fold")] if study.folds else []
    text = [f"{study.name}: {' x '.join(parts)} = {counted(len(cells), 'run')}"]
    for variant in study.variants:
        about = f"{variant.recipe.name} on {variant.dataset}, {counted(variant.recipe.epochs, 'epoch')}"
        each = seconds[variant.name]
        takes = f"time not known: {each}" if isinstance(each, str) else f"about {duration(each)} a run"
        said = [f"{name} {words}" for name, words in variant.stated.items() if words != "-"]
        text.append("; ".join([f"  {variant.name:{width}}  {about}, {takes}", *filter(None, [variant.note]), *said]))
    return text


def estimated(study: "Study", data_dir: Path | None, machine: dict[str, Any]) -> dict[str, float | str]:
    """Seconds of one run of each variant, or why they are not known."""
    from thumbnet.machine import Machine
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.studies.study import estimated_seconds

    with reporter_for_terminal() as reporter:
        reporter.say("timing a few steps of each variant")
        return estimated_seconds(study, machine=Machine(**machine), data_dir=data_dir)


def cost_line(study: "Study", left: "list[Cell]", seconds: dict[str, float | str], jobs: int) -> str:
    """How long the runs that are `left` would take."""
    known = [value for cell in left if not isinstance(value := seconds[cell.variant.name], str)]
    done = f", {len(study.cells()) - len(left)} are done" if len(left) < len(study.cells()) else ""
    unknown = f"; {len(left) - len(known)} not counted" if len(known) < len(left) else ""
    several = f", or somewhat less with --jobs {jobs}: they share the cores" if jobs > 1 else ""
    return f"about {duration(sum(known))} on this machine for {counted(len(known), 'run')}, one at a time{several}{done}{unknown}"


def outcome(comparisons: "list[Comparison]") -> list[str]:
    """Every comparison's table and sentences."""
    from thumbnet.cli.compare import lines

    return [line for comparison in comparisons for line in [*lines(comparison), ""]]
