"""Everything that is to be measured on one GPU, in calls of so many minutes, each going on where the last one stopped.

    python benchmarks/gpu.py --data-dir DIR --out DIR [--runs DIR] [--minutes 9] [--only PART ...] [--quick]

Parts, in this order: `machine` (what it can do at best), `step` (what a step of the fast recipe is made of), `determinism` (one
seed twice in fresh processes: the same bits?), `agreement` (one recipe on CPU and GPU: the same accuracy within noise?), then
all experiments of the report at their full length (`study classic`, three at a time, each within the 3,072 MiB of its GPU), then
campaigns over many seeds in one process, as `bench --one-process` does; or those that --only names, in its order.

Each part writes OUT/PART.json when it is done, and is not done again; a study that is cut short keeps its runs in RUNS and
goes on. Of a campaign as many seeds as fit, but one at least, are added to OUT/RECIPE.json, and by a later call those that it
lacks then, also where OUT is all that is left of earlier calls. --quick does little of each, to try it out, also without a GPU.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from publish_study import published

from thumbnet.errors import Interrupted, ThumbnetError, TrainingFailed
from thumbnet.files import write_json
from thumbnet.judging.statistics import welch
from thumbnet.machine import Machine
from thumbnet.measuring.campaign import measured_campaign
from thumbnet.measuring.operations import convolution_ceiling
from thumbnet.reading import read_json
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes import vary
from thumbnet.runs.run import Run

FAST = "cifar10-94-gpu"
SEEDS = {FAST: 200, "cifar10-96": 20, "cifar100-80": 10}  # as many as the claims about them ask for
AGREEMENT, AGREEMENT_SEEDS = "cifar10-83", 5  # a minute on a CPU
REPORTS_GPU = 3_072  # MiB, the cap that the report sets
SHORTEST = 1 / 160  # of the report's epochs: one
ENDING = 5.0  # seconds after the last seed of a campaign, to measure what the machine can do at best, or to write a checkpoint
LEAST = 20.0  # seconds in which a part may get something done
STEPS, LONGEST, LETTERS = 20, 50, 110  # that are profiled, kernels that are told, and how much of their names


class Call:
    """One call: where it reads and writes, on what, and when it has to end."""

    def __init__(self, arguments: argparse.Namespace):
        self.data, self.out, self.runs, self.quick = arguments.data_dir, arguments.out, arguments.runs, arguments.quick
        self.machine = Machine(device=arguments.device)
        self.end = time.monotonic() + 60 * arguments.minutes

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def campaign(
        self, name: str, seeds: int, *, machine: Machine | None = None, out: Path | None = None
    ) -> dict[str, Any] | None:
        """The record of a recipe in `out` after more seeds of it, as many as still fit; None while it has fewer than `seeds`."""
        out = out or self.out
        path = out / f"{name}.json"
        record = read_json(path, {"seeds": list, "n": int}) if path.is_file() else {"seeds": [], "n": 0}
        missing = seeds - record["n"]
        if missing > 0:
            first = max(record["seeds"], default=-1) + 1
            record = measured_campaign(
                name,
                name.split("-")[0],
                range(first, first + missing),
                out=out,
                add=True,
                folder=self.runs / out.name,
                data_dir=self.data,
                machine=machine or self.machine,
                changes={"epochs": 0.02} if self.quick else {},
                resume=True,  # of a call that was killed: seeds without a record
                one_process=True,
                time_limit=self.left - ENDING,
                tell=lambda line: print(f"  {line}", flush=True),
            )
        return record if record["n"] >= seeds else None


# ---------------------------------------------------------------- parts


def machine(call: Call) -> dict[str, Any]:
    """FLOP/s of a large convolution, bytes per second of a large copy, launches per second of an empty kernel."""
    import torch

    from thumbnet.backend import environment, prepare

    backend = prepare(call.machine)
    size = 2**20 if call.quick else 2**30
    source = torch.zeros(size, dtype=torch.uint8, device=backend.device)
    target, one = torch.empty_like(source), torch.zeros(1, device=backend.device)
    return {
        "environment": environment(backend),
        "convolution_flops_per_second": convolution_ceiling(call.machine),
        "copied_bytes_per_second": 2 * size / fastest(lambda: target.copy_(source), one),
        "seconds_of_a_launch": fastest(lambda: [one.add_(1) for _ in range(1000)], one) / 1000,
    }


def fastest(work: Callable[[], Any], one: Any) -> float:
    """Seconds of the fastest of ten; reading `one` waits for the device."""
    seconds = []
    for _ in range(10):
        one.item()
        began = time.perf_counter()
        work()
        one.item()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def agreement(call: Call) -> dict[str, Any] | None:
    """The same recipe and seeds on the CPU and on the GPU; the difference of the mean accuracies with its interval."""
    seeds = 2 if call.quick else AGREEMENT_SEEDS
    records = {}
    for device in ("cpu", call.machine.device):
        found = call.campaign(AGREEMENT, seeds, machine=Machine(device=device), out=call.runs / "agreement" / device)
        if found is None:
            return None
        records[device] = found
    accuracies = {device: [row["accuracy"] for row in record["runs"]] for device, record in records.items()}
    first, second = records["cpu"], records[call.machine.device]
    found = welch(*([row["accuracy"] for row in record["runs"]] for record in (first, second)))
    return {"recipe": AGREEMENT, "accuracies": accuracies, "gpu_minus_cpu": found and vars(found)}


def determinism(call: Call) -> dict[str, Any]:
    """Two runs of one seed, each in a process of its own: are the weights the same bits?"""
    weights = {}
    for name in ("first", "second"):
        out = call.runs / "determinism" / name
        words = ["train", "cifar10", "--recipe", AGREEMENT, "--out", str(out), "--device", call.machine.device]
        words += ["--no-report", *(["--data-dir", str(call.data)] if call.data else [])]
        words += ["--epochs", "1"] if call.quick else []
        if not (out / "model.safetensors").is_file():
            subprocess.run([sys.executable, "-m", "thumbnet.cli.main", *words], check=True)
        weights[name] = (out / "model.safetensors").read_bytes()
    return {"recipe": AGREEMENT, "same_bits": weights["first"] == weights["second"]}


def step(call: Call) -> dict[str, Any]:
    """A step of the recipe for a GPU, replayed, at each of its resolutions; and at the largest without replaying."""
    made = named_recipe(FAST)
    parts = (made.resolution[-1],) if call.quick else made.resolution
    found = {f"at {part:g} of the side": profiled(call, made.batch_size, part, replayed=True) for part in parts}
    return found | {"launched one by one": profiled(call, made.batch_size, made.resolution[-1], replayed=False)}


def profiled(call: Call, size: int, part: float, *, replayed: bool) -> dict[str, Any]:
    """Seconds of a step of `size` images at `part` of their side, from bytes to weights; of what is replayed; of its kernels."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from thumbnet.backend import prepare
    from thumbnet.data.datasets import load_dataset
    from thumbnet.training.graphs import Recordings
    from thumbnet.training.loop import augmented, updating
    from thumbnet.training.optimize import build_optimizer
    from thumbnet.training.timing import initial_model

    backend, made = prepare(call.machine), vary(named_recipe(FAST), batch_size=size)
    data = load_dataset("cifar10", data_dir=call.data, validation=0.1).to(backend.device)
    model = initial_model(made, data, backend)
    model.resize.part = part
    optimizer = build_optimizer(model, made, backend.dtype)
    update = updating(model, optimizer, made, backend, lambda loss: None, Recordings())
    update = update if replayed or backend.device.type != "cuda" else update.update  # type: ignore[attr-defined]

    def whole_step() -> Any:
        images, labels = data.train.take(torch.arange(size, device=backend.device))
        x, targets = augmented(images, labels, labels % 2 == 0, data, made, 0, 0, 0.0)
        return update(x, targets)[0]

    images, labels = data.train.take(torch.arange(size, device=backend.device))
    x, targets = augmented(images, labels, labels % 2 == 0, data, made, 0, 0, 0.0)
    steps = 2 if call.quick else STEPS

    def seconds_of(work: Callable[[], Any]) -> float:
        for _ in range(5):  # algorithms are chosen, the recording is made
            loss = work()
        loss.item()
        began = time.perf_counter()
        for _ in range(steps):
            loss = work()
        loss.item()
        return (time.perf_counter() - began) / steps

    whole, of_update = seconds_of(whole_step), seconds_of(lambda: update(x, targets)[0])
    activity = ProfilerActivity.CUDA if backend.device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        for _ in range(steps):
            loss = whole_step()
        loss.item()
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        time_of_it = event.self_device_time_total if backend.device.type == "cuda" else event.self_cpu_time_total
        spent[event.key[:LETTERS]] += time_of_it / 1e6 / steps
    return {
        "seconds": whole,
        "seconds_of_the_update": of_update,
        "seconds_in_kernels": sum(spent.values()),
        "kernels": sum(event.count for event in seen.key_averages()) / steps,
        "longest": dict(spent.most_common(LONGEST)),
    }


def classic(call: Call, dataset: str) -> dict[str, Any] | None:
    """The report's experiments on one data set, all their epochs, and what each network then has of the test images, once."""
    folder = call.runs / f"classic-{dataset}"
    where = f"--device {call.machine.device}" + (
        f" --gpu-memory-limit {REPORTS_GPU}" if call.machine.device == "cuda" else ""
    )
    words = f"classic --only {dataset} --jobs 3 {where}" + (f" --scale {SHORTEST}" if call.quick else "")
    data = ["--data-dir", str(call.data)] if call.data else []
    if not ended(call, ["study", *words.split(), "--out", str(folder), *data]):
        return None
    for cell in (path for path in (folder / "cells").iterdir() if path.is_dir()):
        asked = ["evaluate", str(cell), "--split", "test", *where.split()[:2]]
        # Not whether the test images were opened, which a call that was cut short may have done for nothing.
        tested = any(row["split"] == "test" for row in Run.open(cell).evaluations)
        if not tested and not ended(call, asked):
            return None
    return published(folder, words, timed=False)  # three beside each other


def ended(call: Call, words: list[str]) -> bool:
    """Whether a thumbnet command has ended well within the call; it is told to stop otherwise, and keeps what it has."""
    process = subprocess.Popen([sys.executable, "-m", "thumbnet.cli.main", *words], start_new_session=True)
    try:
        code = process.wait(max(1.0, call.left - ENDING))
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code:
        raise TrainingFailed(f"thumbnet {words[0]} ended with exit code {code}")
    return True


PARTS: dict[str, Callable[[Call], dict[str, Any] | None]] = {
    "machine": machine,
    "step": step,
    "determinism": determinism,
    "agreement": agreement,
    **{f"classic-{dataset}": partial(classic, dataset=dataset) for dataset in ("cifar100", "cifar10")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *SEEDS], default=[*PARTS, *SEEDS])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    call = Call(arguments)
    call.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        path = call.out / f"{name}.json"
        if name in PARTS and path.is_file():
            continue
        if call.left < LEAST:
            print(f"{name}: no time left; the same command goes on with it")
            break
        print(f"{name} ({call.left:.0f} s left)", flush=True)
        try:
            record = PARTS[name](call) if name in PARTS else call.campaign(name, 2 if call.quick else SEEDS[name])
        except Interrupted:
            raise
        except ThumbnetError as error:
            print(f"  failed: {error}")
            continue
        if record is None:
            print("  not all of it fitted; the same command goes on with it")
        elif name in PARTS:
            write_json(path, record)


if __name__ == "__main__":
    main()
