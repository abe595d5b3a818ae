"""An ablation as one command."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thumbnet.cli.options import Json, MachineFlags, Machines, Whole, check_positive, described, given, print_json
from thumbnet.errors import UserError
from thumbnet.progress import counted

if TYPE_CHECKING:
    from thumbnet.comparison import Comparison
    from thumbnet.study import Study


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
        so many runs at a time; each gets its part of the processor's cores
    plan
        print what would be trained, and train nothing
    scale
        classic: part of the report's 160 epochs, as in 0.05
    seeds
        classic: runs of each row
    only
        classic: the rows of one data set
    data_dir
        folder with the published files; else THUMBNET_DATA, else downloaded
    """
    check_positive(jobs=jobs)
    chosen = study_named(study, scale, seeds, only)
    folder = out or Path("studies") / chosen.name
    if plan:
        if json:
            print_json(chosen.plan())
        else:
            print("\n".join([*plan_lines(chosen), *cost_lines(chosen, jobs, data_dir, given(machine))]))
        return

    from thumbnet.machine import Machine
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.report import write_study_report
    from thumbnet.study import judge_study, run_study, write_study

    with reporter_for_terminal() as reporter:
        on = Machine(**given(machine))
        done = run_study(chosen, folder, jobs=jobs, machine=on, data_dir=data_dir, tell=reporter.say)
        comparisons = judge_study(chosen, done)
        write_study(chosen, folder, comparisons)
        page = write_study_report(chosen, comparisons, done, folder / "study.html")
    if json:
        found: dict[str, Any] = {"study": chosen.name, "folder": str(folder), "report": str(page)}
        print_json(found | {"comparisons": [comparison.to_json() for comparison in comparisons]})
    else:
        print("\n".join([*outcome(comparisons), f"folder  {folder}", f"page    {page}"]))


def study_named(name: str, scale: float | None, seeds: int | None, only: str | None) -> "Study":
    """The study of a file, or the report's."""
    from thumbnet.classic_study import classic_study
    from thumbnet.study import read_study

    options = {"--scale": scale, "--seeds": seeds, "--only": only}
    if name == "classic":
        return classic_study(scale=1 if scale is None else scale, seeds=1 if seeds is None else seeds, only=only)
    if wrong := [option for option, value in options.items() if value is not None]:
        raise UserError(f"{wrong[0]} is for thumbnet study classic; a study file says so itself")
    if not Path(name).is_file():
        if close := difflib.get_close_matches(name, ["classic"]):
            raise UserError(f"there is no study file {name}; did you mean {close[0]!r}?")
        raise UserError(f"there is no study file {name}; give a TOML file, or classic for the report's experiments")
    return read_study(Path(name))


def plan_lines(study: "Study") -> list[str]:
    """What would be trained, for people."""
    cells = study.cells()
    width = max(len(variant.name) for variant in study.variants)
    parts = [counted(len(study.variants), "variant"), counted(len(study.seeds), "seed")]
    parts += [counted(study.folds, "fold")] if study.folds else []
    text = [f"{study.name}: {' x '.join(parts)} = {counted(len(cells), 'run')}"]
    for variant in study.variants:
        about = f"{variant.recipe.name} on {variant.dataset}, {counted(variant.recipe.epochs, 'epoch')}"
        text.append(f"  {variant.name:{width}}  {about}{f'; {variant.note}' if variant.note else ''}")
    return text


def cost_lines(study: "Study", jobs: int, data_dir: Path | None, machine: dict[str, Any]) -> list[str]:
    """How long it would take, by a few steps of each variant on this machine; the reason where that cannot be told."""
    from thumbnet.machine import Machine
    from thumbnet.progress import duration, reporter_for_terminal
    from thumbnet.study import estimated_seconds

    with reporter_for_terminal() as reporter:
        reporter.say("timing a few steps of each variant")
        try:
            seconds = estimated_seconds(study, machine=Machine(**machine), data_dir=data_dir)
        except UserError as error:
            return [f"how long it would take is not known: {error}"]
    runs = len(study.seeds) * max(1, study.folds)
    width = max(len(name) for name in seconds)
    lines = [f"  {name:{width}}  about {duration(each)} a run" for name, each in seconds.items()]
    at_once = f"; --jobs {jobs} shares the processor and may save a part of it" if jobs > 1 else ""
    return [
        *lines,
        f"about {duration(runs * sum(seconds.values()))} in all on this machine, one run at a time{at_once}",
    ]


def outcome(comparisons: "list[Comparison]") -> list[str]:
    """Every comparison's table and sentences."""
    from thumbnet.cli.compare import lines

    return [line for comparison in comparisons for line in [*lines(comparison), ""]]
