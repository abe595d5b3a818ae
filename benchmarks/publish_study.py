"""Write a finished study to results/, so that scripts/update_readme.py shows it in docs/study.md.

    thumbnet study FILE
    python benchmarks/publish_study.py studies/NAME "FILE" [--not-timed]

    python benchmarks/publish_study.py --judge-again results/study-NAME.json

Everything is read from the study's folder; where its networks have been tested since (`thumbnet evaluate RUN --split test`),
what they had of the test images, too. --not-timed leaves the times out, for studies on a machine that was not idle. Numbers
that lie in results/ already can be judged again where the statistics have become better: the runs stay as they are, what is
concluded of them over their seeds is made anew.
"""

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from thumbnet.files import write_json
from thumbnet.judging import claims
from thumbnet.judging.groups import Group, Member
from thumbnet.judging.pairs import Pair, adjusted, paired_by_seed
from thumbnet.judging.statistics import wilson_interval
from thumbnet.reading import read_json
from thumbnet.runs.run import Run
from thumbnet.words import metric_in_words

ROOT = Path(__file__).parents[1]


def published(folder: Path, words: str, *, timed: bool) -> dict[str, Any]:
    """What results/ says of a study: every comparison with its sentences and runs, and what it ran on."""
    fields = {"study": str, "about": str, "seeds": list, "notes": dict, "beside": dict, "comparisons": list}
    judged = read_json(folder / "study.json", fields)
    environments = []
    for comparison in judged["comparisons"]:
        for group in comparison["groups"]:
            for member in group["members"]:
                member["path"] = Path(member["path"]).name  # where the folder lay says nothing to others
                run = Run.open(folder / "cells" / member["path"])
                member |= outcome(run)
                environments.append(about_machine(run))
                member["train_seconds"] = member["train_seconds"] if timed else None
    for found in judged["comparisons"]:
        rows = judged["beside"].get(found["dataset"], [])
        told = judged["beside"][found["dataset"]] = [with_test(row, found) for row in rows]
        if told != rows:
            judged["about"] += f" The networks of {found['dataset']} were tested after the study."
    machines = [machine for place, machine in enumerate(environments) if machine not in environments[:place]]
    command = ["thumbnet", "study", *words.split()]
    # Cells may be of different versions, where a study was stopped and gone on with later: all are told.
    return {"kind": "study", "command": command, **judged, **machines[0], "other_machines_and_versions": machines[1:]}


def about_machine(run: Run) -> dict[str, Any]:
    """What a run was trained on."""
    about = run.environment
    return {
        "processor": about["gpu"] or about["processor"],
        "threads": about["threads"],
        "precision": about["precision"],
        "versions": {key: about[key] for key in ("thumbnet", "commit", "python", "torch", "numpy")},
    }


def outcome(run: Run) -> dict[str, Any]:
    """What else one run ended with."""
    names = (
        "epochs",
        "train_accuracy",
        "train_loss",
        "validation_accuracy",
        "validation_top5",
        "validation_loss",
        "l2_penalty",
    )
    tests = [row for row in run.evaluations if row["split"] == "test" and row["views"] == 1]
    tested = {f"test_{name}": tests[0][name] for name in ("accuracy", "top5", "loss", "images")} if tests else {}
    return {name: run.summary[name] for name in names} | {"train_top5": run.metrics[-1]["train_top5"]} | tested


def with_test(row: dict[str, str], found: dict[str, Any]) -> dict[str, str]:
    """A row of what another report states, with what our networks had of the test images before it, if all were tested.

    The interval is of the images alone, and given where there is one network.
    """
    [members] = [group["members"] for group in found["groups"] if group["name"] == row["group"]]
    if not all("test_loss" in member for member in members):
        return row
    metric = found["metric"]
    mean = statistics.fmean(member[f"test_{metric}"] for member in members)
    shown = f"{mean:.2%}"
    if len(members) == 1:
        images = members[0]["test_images"]
        low, high = wilson_interval(round(mean * images), images)
        shown += f" ({low:.2%} to {high:.2%})"
    loss = statistics.fmean(member["test_loss"] + member["l2_penalty"] for member in members)
    ours = {f"test {metric_in_words(metric)}": shown, "test loss with penalty": f"{loss:.4f}"}
    place = list(row).index("reported, test")
    cells = list(row.items())
    return dict([*cells[:place], *ours.items(), *cells[place:]])


def judged_again(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the conclusions over seeds made anew from its numbers; those over images stay."""
    for found in record["comparisons"]:
        metric, groups = found["metric"], []
        for group in found["groups"]:
            members = [
                Member(row["path"], row["seed"], row["value"], row["test_openings"], row["train_seconds"] or 0.0)
                for row in group["members"]
            ]
            groups.append(Group(group["name"], tuple(members), metric))
        if any(group.n < 2 for group in groups):
            found["pairs"] = [pair | {"claimed": False} for pair in found["pairs"]]
            continue
        first, pairs = groups[0], []
        for group in groups[1:]:  # of one study: the same seeds, which hold out the same images
            pairs.append(Pair(first.name, group.name, paired_by_seed(first, group), by_seed=True))
        by_name = {group.name: group for group in groups}
        pairs = [
            replace(pair, sentence=claims.on_pair(pair, first, by_name[pair.second], metric))
            for pair in adjusted(pairs)
        ]
        found["pairs"] = [asdict(pair) | {"p": pair.p, "claimed": pair.claimed} for pair in pairs]
        found["sentences"] = [pair.sentence for pair in pairs]
        found["warnings"] = claims.warnings(groups, pairs, [], {}, [])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("words", nargs="?", help="what was typed behind `thumbnet study`, as in 'classic --scale 0.05'")
    parser.add_argument("--judge-again", type=Path, metavar="RECORD")
    parser.add_argument("--not-timed", action="store_true")
    arguments = parser.parse_args()
    if arguments.judge_again:
        write_json(arguments.judge_again, judged_again(json.loads(arguments.judge_again.read_text(encoding="utf-8"))))
        return
    if not (arguments.folder and arguments.words):
        parser.error("name the study's folder and what was typed, or --judge-again a record")
    record = published(arguments.folder, arguments.words, timed=not arguments.not_timed)
    write_json(ROOT / "results" / f"study-{record['study']}.json", record)


if __name__ == "__main__":
    main()
