"""From runs to a page: gathers the sections and fills the templates."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from thumbnet.files import write_text
from thumbnet.judging.claims import cells
from thumbnet.judging.comparison import Comparison
from thumbnet.plots import curves, groups
from thumbnet.recipes import as_typed, changes_of, title_of
from thumbnet.report import sections
from thumbnet.report.pictures import as_svg
from thumbnet.runs.run import Run
from thumbnet.studies.reported import beside_table
from thumbnet.words import counted, metric_in_words

if TYPE_CHECKING:
    from thumbnet.studies.cells import Cell
    from thumbnet.studies.study import Study


def write_run_report(run: Run, path: Path | None = None, *, data_dir: Path | None = None) -> Path:
    """The page of one finished run, at `path` or in its folder; gives where it lies.

    What was not measured, or cannot be shown since the data are gone, is left out with the reason. `data_dir` says where they
    are now; `UserError` where they are not there.
    """
    run.require_finished()
    found = sections.judged(run)
    data, reason = sections.data_or_reason(run, data_dir)
    shown = None
    if found is not None and data is not None:
        split = sections.split_of(found, data)
        if split is not None and sections.same_images(found, split, data):
            shown = sections.mistakes(found, data, split)
        else:
            reason = "the data have changed since the predictions were made"
    page = render(
        "run.html",
        title=f"{title_of(run.recipe)} on {run.data['name']}",
        run=run,
        headline=sections.headline(run, found),
        recipe=sections.recipe_rows(run.recipe),
        own_files=sections.own_files(run),
        curves=sections.curves(run),
        scores=found and found.scores,
        confusion=found and sections.confusion(found.scores),
        classes=found and sections.class_rows(found.scores),
        calibration=found and sections.calibration(found),
        mistakes=shown,
        reason=reason,
        robustness=sections.robustness(run),
        cost=sections.cost(run, data),
        data=sections.data_section(run, data),
        environment=sections.environment(run),
        reproduce=sections.reproduce(run),
    )
    return written(path or run.path / "report.html", page)


def write_comparison_report(comparison: Comparison, runs: Sequence[Run], path: Path) -> Path:
    """The page of several runs compared; gives where it lies."""
    metrics = {str(run.path): run.metrics for run in runs}
    title = f"{counted(len(comparison.groups), 'recipe')} on {comparison.dataset}"
    parts = [comparison_part(comparison, metrics, {})]
    page = render(
        "comparison.html", kind="comparison", title=title, about="", parts_of_page=parts, figures=[], trained=[]
    )
    return written(path, page)


def write_study_report(
    study: "Study", comparisons: Sequence[Comparison], done: "Sequence[tuple[Cell, Run]]", path: Path
) -> Path:
    """The page of a study: a comparison for each data set.

    For variants that another report speaks of also ours beside it, and the classic figure of each one's first run.
    """
    metrics = {str(run.path): run.metrics for _, run in done}
    notes = {variant.name: variant.note for variant in study.variants if variant.note}
    parts = [
        comparison_part(comparison, metrics, notes) | {"beside": beside_table(comparison, study.variants, done)}
        for comparison in comparisons
    ]
    figures, seen = [], set()
    for cell, run in done:
        if cell.variant.name not in seen and cell.variant.stated:
            seen.add(cell.variant.name)
            top5 = len(run.classes) >= 100
            figure = curves.classic_figure(run.metrics, top5=top5, hardest=run.recipe.hardest < 1)
            alt = f"{'Top-5 accuracy' if top5 else 'Accuracy'} by epoch of {cell.variant.name}, training and validation"
            figures.append({"name": cell.variant.name, "figure": as_svg(figure, alt)})
    page = render(
        "comparison.html",
        kind="study",
        title=study.name,
        about=study.about,
        parts_of_page=parts,
        figures=figures,
        trained=trained_rows(study, done),
        seeds=as_typed(study.seeds),
        folds=study.folds,
        machines=machines(done),
        openings=sum(run.test_openings for _, run in done),
    )
    return written(path, page)


def trained_rows(study: "Study", done: "Sequence[tuple[Cell, Run]]") -> list[dict[str, Any]]:
    """What each variant trained: data, recipe, what differs from it, and the folders of its runs beside the page."""
    rows = []
    for variant in study.variants:
        runs = [
            (
                f"seed {cell.recipe.seed}" + (f", fold {cell.recipe.fold}" if cell.recipe.folds else ""),
                f"cells/{cell.name}/",
            )
            for cell, _ in done
            if cell.variant.name == variant.name
        ]
        rows.append(
            {
                "name": variant.name,
                "dataset": variant.dataset,
                "recipe": variant.recipe.name,
                "epochs": as_typed(variant.recipe.epochs),
                "changes": ", ".join(changes_of(variant.recipe)) or "none",
                "runs": runs,
            }
        )
    return rows


def machines(done: "Sequence[tuple[Cell, Run]]") -> list[str]:
    """On what the runs were trained, each kind once."""
    kinds = []
    for _, run in done:
        about = run.environment
        where = about.get("gpu") or f"{about.get('processor')}, {counted(about['threads'], 'thread')}"
        kinds.append(f"{where}, {about['precision']}, thumbnet {about.get('thumbnet')}, torch {about.get('torch')}")
    return list(dict.fromkeys(kinds))


def comparison_part(comparison: Comparison, metrics: dict[str, Any], notes: dict[str, str]) -> dict[str, Any]:
    """Table, figures and sentences of one comparison."""
    rows = [
        cells(group, comparison.metric)
        | {"seconds": sections.in_seconds(group.seconds), "note": notes.get(group.name, "")}
        for group in comparison.groups
    ]
    means = "; ".join(f"{row['name']} {row['mean']}" for row in rows)
    effects = [pair for pair in comparison.pairs if pair.difference]
    return {
        "comparison": comparison,
        "metric": metric_in_words(comparison.metric),
        "rows": rows,
        "noted": bool(notes),
        "curves": as_svg(groups.epochs_figure(comparison, metrics), "Validation by epoch of each group."),
        "ends": as_svg(
            groups.ends_figure(comparison), f"Final {metric_in_words(comparison.metric)} of each group: {means}."
        ),
        "beside": [],
        "effects": effects and as_svg(groups.effects_figure(effects, comparison.metric), effects_in_words(effects)),
    }


def effects_in_words(pairs: Sequence[Any]) -> str:
    """The figure of differences, for those who cannot see it."""
    return "Differences with 95 % intervals. " + " ".join(pair.sentence for pair in pairs)


def render(template: str, **values: Any) -> str:
    """The page; every value is escaped, and one that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("thumbnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_a_word"] = lambda path: shlex.quote(str(path))
    made = {"version": version("thumbnet"), "day": datetime.now(UTC).date().isoformat()}
    return environment.get_template(template).render(**made, **values)


def written(path: Path, page: str) -> Path:
    """The file, replaced in one step."""
    write_text(path, page)
    return path
