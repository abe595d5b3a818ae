"""Compare finished runs."""

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thumbnet.cli.answers import compare_files, refuse
from thumbnet.cli.options import FIGURES, Json, check_ending, check_writable, described, print_json, show

if TYPE_CHECKING:
    from thumbnet.judging.comparison import Comparison


@described
def compare(
    *runs: Path,
    split: Literal["validation", "test"] | None = None,
    metric: Literal["accuracy", "balanced_accuracy", "top5", "loss"] = "accuracy",
    csv: Path | None = None,
    plot: Path | None = None,
    report: Path | None = None,
    json: Json = False,
) -> None:
    """Compare finished runs: mean, spread and interval of each recipe over its seeds, differences, and what can be claimed.

    Parameters
    ----------
    runs
        folders written by `thumbnet train`; those of one recipe are a group, whatever their seeds. A folder of several runs
        stands for all of them. With a .csv or .npz file of another program's answers among them, image by image
    split
        the validation images (the default), or the test images as `thumbnet evaluate --split test` measured them
    metric
        what to compare
    csv
        write a row per run to this file
    plot
        draw curves with bands, and means with intervals, into this .png, .svg or .pdf file
    report
        write the page with everything to this .html file
    """
    from thumbnet.judging.comparison import compare as compare_runs
    from thumbnet.runs.paths import find_runs, is_answers

    check_ending("plot", plot, *FIGURES)
    check_ending("report", report, ".html")
    check_writable(csv, plot, report)
    if file := next(filter(is_answers, runs), None):
        refuse(file, {f"--metric {metric}": metric != "accuracy", "--plot": plot, "--report": report})
        return compare_files(runs, split=split, csv=csv, json=json)
    opened = find_runs(runs, tell=lambda line: show(line, file=sys.stderr))
    found = compare_runs(opened, split=split or "validation", metric=metric)
    if csv:
        from thumbnet.files import write_text

        write_text(csv, as_csv(found))
    if plot:
        from thumbnet.plots.groups import comparison_figure
        from thumbnet.plots.style import save

        save(comparison_figure(found, {str(run.path): run.metrics for run in opened}), plot)
    if report:
        from thumbnet.report import write_comparison_report

        write_comparison_report(found, opened, report)
    if json:
        print_json(found.to_dict())
    else:
        written = [f"{what:6}  {path}" for what, path in (("csv", csv), ("plot", plot), ("report", report)) if path]
        show("\n".join([*lines(found), *written]))


def lines(found: "Comparison") -> list[str]:
    """A table of the groups, a sentence for every pair, and the warnings."""
    from thumbnet.judging.claims import cells
    from thumbnet.words import duration, metric_in_words

    width = max(5, *(len(group.name) for group in found.groups))
    text = [
        f"{found.split} {metric_in_words(found.metric)} on {found.dataset}{', one view' if found.split == 'test' else ''}",
        f"{'group':{width}}     n     mean  {'sd' if found.metric == 'loss' else 'sd, points':>10}  "
        "95 % interval of the mean   time",
    ]
    for group in found.groups:
        row = cells(group, found.metric)
        text.append(
            f"{row['name']:{width}}  {row['n']:>4}  {row['mean']:>7}  {row['sd']:>10}  {row['interval']:<25}  "
            f"{duration(group.seconds)}"
        )
    text += ["", *found.sentences]
    return text + [f"note: {warning}" for warning in found.warnings]


def as_csv(found: "Comparison") -> str:
    """One row per run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "run", "seed", found.metric, "train_seconds", "test_openings"])
    for group in found.groups:
        for member in group.members:
            row = [group.name, member.path, member.seed, f"{member.value:.6f}", member.train_seconds]
            writer.writerow([*row, member.test_openings])
    return text.getvalue()
