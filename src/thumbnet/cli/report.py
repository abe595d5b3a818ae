"""Write the page of a run, or of several compared."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from thumbnet.cli.options import Json, check_ending, check_writable, described, print_json, show
from thumbnet.errors import UserError


@described
def report(
    *runs: Path,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    split: Literal["validation", "test"] = "validation",
    data_dir: Path | None = None,
    json: Json = False,
) -> None:
    """Write one HTML file: of one run everything that was measured, of several their comparison.

    Parameters
    ----------
    runs
        folders written by `thumbnet train`; a folder of several runs stands for all of them
    output
        the file; by default report.html in the run folder, comparison.html here for several
    split
        for several runs: which images' results are compared. One run is judged by its test images if it was measured on them
    data_dir
        for one run: where the data are now, if they have moved since training
    """
    if not runs:
        raise UserError("name a run folder, for instance runs/latest")
    check_ending("output", output, ".html")
    check_writable(output)

    from thumbnet.judging.comparison import compare
    from thumbnet.report import write_comparison_report, write_run_report
    from thumbnet.runs.paths import find_runs

    opened = find_runs(runs, tell=lambda line: show(line, file=sys.stderr))
    if len(opened) == 1:
        path = write_run_report(opened[0], output, data_dir=data_dir)
    elif data_dir is not None:
        raise UserError(f"--data-dir {data_dir} is for the page of one run; a comparison shows no images, leave it out")
    else:
        path = write_comparison_report(compare(opened, split=split), opened, output or Path("comparison.html"))
    if json:
        print_json({"runs": [str(run.path) for run in opened], "report": str(path), "bytes": path.stat().st_size})
    else:
        show(path)
