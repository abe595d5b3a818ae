"""Write the tables of results/ into the README and the pages of docs/ that have them, between their markers.

`--check` only says whether they are up to date.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

from thumbnet.measuring.results import campaign_table, recorded
from thumbnet.words import duration, metric_in_words

README = Path(__file__).parents[1] / "README.md"
RELIABILITY = Path(__file__).parents[1] / "docs" / "reliability.md"
NUMBERS = README.parent / "docs" / "results.md"
STUDIES = README.parent / "docs" / "study.md"
DOCTOR = README.parent / "docs" / "doctor.md"
REACHED = ("all", "without_doubted", "without_wrong")  # accuracies in results/wrong-labels.json
MEASURED = 6  # sentences shown in a row; results/reliability.json has all
RESULTS = ("<!-- results: written by scripts/update_readme.py -->", "<!-- end of results -->")
HEADLINE = ("<!-- headline: written by scripts/update_readme.py -->", "<!-- end of headline -->")


def headline() -> list[str]:
    """What the recipes reach on the machine that they were made on, the fastest first, each set of images together."""
    own = [record for record in recorded() if record["kind"] == "campaign"]
    machine = ("processor", "threads", "precision")
    own = [record for record in own if not record["changes"] and all(record[key] == own[0][key] for key in machine)]
    head = f"training and test, {own[0]['threads']} threads, {own[0]['precision']}"
    rows = [["images", "recipe", "test accuracy", "views", "n", head], ["---"] * 6]
    for record in sorted(own, key=lambda record: (record["dataset"], record["train_clock"])):
        took = duration(record["train_clock"])
        right = f"{record['accuracy']:.2%}"
        if record["accuracy_sd"] is not None:
            right += f" (sd {100 * record['accuracy_sd']:.2f})"
        if record["dataset"] == "cifar100":
            right += f", top-5 {record['top5']:.2%}"
        rows.append([record["dataset"], f"`{record['recipe']}`", right, str(record["views"]), str(record["n"]), took])
    return in_columns(rows)


def accuracy_table() -> list[str]:
    """One row per published run."""
    rows = ["| recipe | changed | test accuracy | top-5 | n | machine |", "|---|---|---|---|---|---|"]
    for result in recorded():
        if result["kind"] == "accuracy":
            low, high = result["test_interval95"]
            changed = ", ".join(f"{name} {value}" for name, value in result["changes"].items()) or "nothing"
            rows.append(
                f"| `{result['recipe']}` | {changed} | {result['test_accuracy']:.2%} ({low:.2%} to {high:.2%}) "
                f"| {result['test_top5']:.2%} | {result['n']} | {result['processor']}, {result['precision']} |"
            )
    return rows


def campaigns(*, variants: bool) -> list[str]:
    """The tables of published campaigns, one for each machine: recipes as they are, and where asked for variants after them."""
    by_machine: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(recorded(), key=lambda record: (record.get("recipe", ""), bool(record.get("changes")))):
        if record["kind"] == "campaign" and (variants or not record["changes"]):
            machine = f"{record['processor']}, {record['threads']} threads, {record['precision']}"
            by_machine.setdefault(machine, []).append(record)
    return [
        line for machine, records in by_machine.items() for line in (f"On {machine}:", "", *campaign_table(records), "")
    ]


def throughput_table() -> list[str]:
    """One row per side of the comparison with Keras."""
    lines = []
    for result in recorded():
        if result["kind"] == "throughput":
            sides = (
                ("thumbnet, bf16", result["thumbnet_bf16"], result["ratio_bf16"]),
                ("thumbnet, fp32", result["thumbnet_fp32"], result["ratio_fp32"]),
                (result["peer"].split(", numpy")[0], result["keras"], 1),
            )
            lines += [
                f"Training images per second of the {result['what']}, {result['threads']} threads of "
                f"{result['processor']}, median of {result['rounds']} rounds taken in turn:",
                "",
                "| program | images/s | ratio | augmentation alone, images/s |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| {name} | {side['images_per_second']:,.0f} | {ratio:.1f} | {side['augmentation_images_per_second']:,.0f} |"
                for name, side, ratio in sides
            ]
    return lines


def promises_table() -> list[str]:
    """One row per promise of reliability, then how the tests themselves were tested."""
    lines = []
    for result in recorded():
        if result["kind"] == "reliability":
            lines += ["| | promise | cases | what was measured | tests in |", "|---|---|---|---|---|"]
            for row in result["promises"]:
                measured = "; ".join(row["measured"][:MEASURED]) + (" ..." if len(row["measured"]) > MEASURED else "")
                files = ", ".join(sorted({f"`{Path(test.split('::')[0]).name}`" for test in row["tests"]}))
                lines.append(f"| {row['key']} | {row['promise']} | {row['cases']:,} | {measured} | {files} |")
            caught = sum(defect["outcome"] == "caught" for defect in result["defects"])
            lines += [
                "",
                f"`{result['command']}` on {result['tests_time'][:10]}: {result['tests']} in {duration(result['seconds'])}; "
                f"{caught} of {len(result['defects'])} planted defects caught on {result['defects_time'][:10]}. "
                f"{result['processor']}, torch {result['torch']}.",
            ]
    return lines or ["No full run is recorded yet."]


def promises_in_short() -> list[str]:
    """The same for the README: what, how often, and where more is said."""
    lines = []
    for result in recorded():
        if result["kind"] == "reliability":
            caught = sum(defect["outcome"] == "caught" for defect in result["defects"])
            lines += [
                f"What holds when things go wrong: {len(result['promises'])} promises, each tried many times, "
                f"and {caught} planted defects (on {result['defects_time'][:10]}) caught by the tests named for them "
                "([the promises, how they are tested, and what is not promised](docs/reliability.md)).",
            ]
    return lines


def study_tables() -> list[str]:
    """Every published study: a table and the sentences of each of its comparisons."""
    lines = []
    for result in recorded():
        if result["kind"] == "study":
            lines += [f"**{result['study']}.** {result['about']}", ""]
            for found in result["comparisons"]:
                lines += [*comparison_table(found, result["notes"]), ""]
                lines += as_table(result.get("beside", {}).get(found["dataset"], []))
                lines += [f"- {pair['sentence']}" for pair in found["pairs"]] + [""]
    return lines or ["No study is recorded yet."]


def duplicates_tables() -> list[str]:
    """What the doctor finds of planted near duplicates, and in CIFAR's own."""
    lines = []
    for result in recorded():
        if result["kind"] == "duplicates":
            sets = result["planted"]
            first = next(iter(sets.values()))
            lines += [
                f"Changed copies found of {first['of']}, among test images, made from {first['images']:,} training ones:",
                "",
            ]
            rows = [["change", *sets], ["---"] * (1 + len(sets))]
            rows += [[change, *(str(found["found"][change]) for found in sets.values())] for change in first["found"]]
            lines += [*in_columns(rows), ""]
            alone = " and ".join(f"{found['pairs_in_the_unchanged']} ({name})" for name, found in sets.items())
            lines += [f"Pairs named among the unchanged images: {alone}.", ""]
            heads = [
                "as published",
                "test images equal to training images",
                "equal or alike",
                "pairs alike within training and test",
            ]
            rows = [heads, ["---"] * len(heads)]
            for name, found in result["published"].items():
                within = " and ".join(f"{count:,}" for count in found["pairs_alike_within"].values())
                alike = f"{found['test_images_equal_or_alike']:,} ({found['part_of_the_test_images']:.2%})"
                rows.append([name, f"{found['test_images_equal_to_training_images']:,}", alike, within])
            lines += in_columns(rows)
    return lines or ["Not measured yet."]


def wrong_labels_table() -> list[str]:
    """What the doctor finds of wrong labels, and what training without the images is worth."""
    heads = ["labels made wrong", "how many", "estimated", "listed", "of these made wrong", *map(in_words, REACHED)]
    lines = []
    for result in recorded():
        if result["kind"] == "wrong-labels":
            rows = [heads, ["---"] * len(heads)]
            for kind in dict.fromkeys(row["kind"] for row in result["rows"]):
                runs = [row for row in result["rows"] if row["kind"] == kind]
                means = [
                    statistics.fmean(row[key] for row in runs) for key in ("wrong", "expected", "doubted", "found")
                ]
                reached = [mean_with_sd([row[key] for row in runs if key in row]) for key in REACHED]
                rows.append([kind, *(f"{mean:,.0f}" for mean in means), *reached])
            trained, doubted_by = result["trained"], result["doubted_by"]
            lines += [
                f"CIFAR-10, `{trained['recipe']}` for {trained['epochs']} epochs, labels doubted by "
                f"{doubted_by['folds']} networks of `{doubted_by['recipe']}`; accuracy in % on the test images with one view, "
                f"mean and standard deviation of {len(runs)} seeds:",
                "",
                *in_columns(rows),
            ]
    return lines or ["Not measured yet."]


def in_words(name: str) -> str:
    """`without wrong` for without_wrong."""
    return name.replace("_", " ")


def mean_with_sd(values: list[float]) -> str:
    """In points, nothing where there are no values."""
    return f"{100 * statistics.fmean(values):.2f} ({100 * statistics.stdev(values):.2f})" if values else "-"


def as_table(rows: list[dict[str, str]]) -> list[str]:
    """Rows with the same columns, nothing where there are none."""
    if not rows:
        return []
    return [*in_columns([list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]), ""]


def in_columns(rows: list[list[str]]) -> list[str]:
    """Lines of a table."""
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def comparison_table(found: dict[str, Any], notes: dict[str, str]) -> list[str]:
    """One row per group: what was measured on held-out images, and what is noted of it."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}" if found["metric"] == "loss" else f"{value:.2%}"

    noted = any(group["name"] in notes for group in found["groups"])
    metric = metric_in_words(found["metric"])
    heads = [found["dataset"], "n", f"{found['split']} {metric}", "sd", "95 % interval of the mean"]
    rows = [[*heads, f"training {metric}", *(["note"] if noted else [])]]
    rows.append(["---"] * len(rows[0]))
    for group in found["groups"]:
        between = " to ".join(shown(end) for end in group["interval95"] or [])
        fitted = [member.get(f"train_{found['metric']}") for member in group["members"]]
        training = "-" if None in fitted else shown(statistics.fmean(fitted))
        row = [group["name"], str(group["n"]), shown(group["mean"]), shown(group["sd"]), between, training]
        rows.append([*row, *([notes.get(group["name"], "")] if noted else [])])
    return in_columns(rows)


def updated(text: str, tables: dict[tuple[str, str], list[list[str]]]) -> str:
    """A page with the tables between its pairs of markers made anew."""
    for (begin, end), between in tables.items():
        head, rest = text.split(begin)
        _, tail = rest.split(end)
        text = "\n".join([head + begin, *(line for table in between for line in ("", *table)), "", end + tail])
    return text


def main() -> None:
    pages = {
        README: {
            HEADLINE: [headline()],
            RESULTS: [campaigns(variants=False), promises_in_short()],
        },
        NUMBERS: {RESULTS: [campaigns(variants=True), accuracy_table(), throughput_table()]},
        RELIABILITY: {RESULTS: [promises_table()]},
        STUDIES: {RESULTS: [study_tables()]},
        DOCTOR: {RESULTS: [duplicates_tables(), wrong_labels_table()]},
    }
    for page, tables in pages.items():
        text = page.read_text(encoding="utf-8")
        if "--check" not in sys.argv:
            page.write_text(updated(text, tables), encoding="utf-8")
        elif updated(text, tables) != text:
            sys.exit(f"{page.name} is out of date: python scripts/update_readme.py")


if __name__ == "__main__":
    main()
