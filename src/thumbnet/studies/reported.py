"""What another report states of the variants of a study, beside what ours ended with."""

import statistics
from collections.abc import Sequence

from thumbnet.judging.comparison import Comparison
from thumbnet.runs.run import Run
from thumbnet.studies.cells import Cell, Variant
from thumbnet.words import metric_in_words


def beside_table(
    comparison: Comparison, variants: Sequence[Variant], done: Sequence[tuple[Cell, Run]]
) -> list[dict[str, str]]:
    """One row per variant of a study that another report speaks of: what its runs ended with (means) beside what is stated.

    Gaps are in points, losses with the L2 penalty, as Keras has them.
    """
    rows, metric = [], comparison.metric
    for variant in variants:
        if not variant.stated or variant.dataset != comparison.dataset:
            continue
        ends = [(run.summary, run.metrics[-1]) for cell, run in done if cell.variant.name == variant.name]
        training = statistics.fmean(last[f"train_{metric}"] for _, last in ends)
        validation = statistics.fmean(summary[f"validation_{metric}"] for summary, _ in ends)
        loss = statistics.fmean(summary["validation_loss"] + summary["l2_penalty"] for summary, _ in ends)
        ours = {
            "group": variant.name,
            f"training {metric_in_words(metric)}": f"{training:.2%}",
            f"validation {metric_in_words(metric)}": f"{validation:.2%}",
            "gap": f"{100 * (training - validation):.1f}",
            "loss with penalty": f"{loss:.4f}",
        }
        rows.append(ours | dict(variant.stated))
    return rows
