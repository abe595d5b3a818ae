"""Everything that is to be measured on one GPU, in calls of so many minutes, each going on where the last one stopped.

    python benchmarks/gpu.py --data-dir DIR --out DIR [--runs DIR] [--minutes 9] [--only PART ...] [--quick]

Parts, in this order: `machine` (what it can do at best), `step` (what a step of the fast recipe is made of), `determinism` (one
seed twice in fresh processes: the same bits?), `agreement` (one recipe on CPU and GPU: the same accuracy within noise?), then
campaigns over many seeds in one process, as `bench --one-process` does, and the report's network at its full length, within
the 3,072 MiB of its GPU. Each writes OUT/PART.json or OUT/RECIPE.json when it is done, and is not done again; a campaign that is
cut short keeps its runs in RUNS and goes on. --quick does little of each, to try it out, also without a GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thumbnet.errors import Interrupted, ThumbnetError
from thumbnet.files import write_json
from thumbnet.judging.statistics import welch
from thumbnet.machine import Machine
from thumbnet.measuring.campaign import measured_campaign
from thumbnet.measuring.operations import convolution_ceiling
from thumbnet.recipes import recipe as named_recipe
from thumbnet.recipes import vary

FAST = "cifar10-94-gpu"
SEEDS = {FAST: 200, "cifar10-96": 20, "cifar100-80": 10}  # as many as the claims about them ask for
AGREEMENT, AGREEMENT_SEEDS = "cifar10-83", 5  # a minute on a CPU
CLASSIC, REPORTS_GPU = "cifar10-classic", 3_072  # MiB, the cap that the report sets
FIRST = 2  # seeds of a campaign whose time says how many fit into a call
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
        self, name: str, seeds: int, *, machine: Machine | None = None, folder: str = "", **changes: Any
    ) -> Any:
        """A recipe over as many of `seeds` as still fit; None where not all did. Runs of earlier calls are kept."""
        changes |= {"epochs": 0.02} if self.quick else {}
        options: dict[str, Any] = {
            "folder": self.runs / (folder or name),
            "data_dir": self.data,
            "machine": machine or self.machine,
            "changes": changes,
            "resume": True,
            "one_process": True,
            "tell": lambda line: print(f"  {line}", flush=True),
        }
        dataset = name.split("-")[0]
        done = sum(path.is_file() for path in options["folder"].glob("*/bench.json"))
        began = time.monotonic()
        if done < min(FIRST, seeds):
            measured_campaign(name, dataset, range(min(FIRST, seeds)), **options)
            each = (time.monotonic() - began) / (min(FIRST, seeds) - done)  # the few steps that warm up among them
        else:
            each = max(
                json.loads(path.read_text())["row"]["train_clock"] for path in options["folder"].glob("*/bench.json")
            )
        done = sum(path.is_file() for path in options["folder"].glob("*/bench.json"))
        fit = min(seeds, done + max(0, int(self.left / (1.2 * each))))
        if fit == 0:
            return None
        record = measured_campaign(name, dataset, range(fit), **options)
        return record if fit == seeds else None


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
        records[device] = call.campaign(AGREEMENT, seeds, machine=Machine(device=device), folder=f"agreement-{device}")
        if records[device] is None:
            return None
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


def classic(call: Call) -> dict[str, Any] | None:
    """The report's network, all its epochs, within the memory of its GPU."""
    capped = Machine(device=call.machine.device, gpu_memory=REPORTS_GPU if call.machine.device == "cuda" else None)
    return call.campaign(CLASSIC, 1, machine=capped)  # type: ignore[no-any-return]


PARTS: dict[str, Callable[[Call], dict[str, Any] | None]] = {
    "machine": machine,
    "step": step,
    "determinism": determinism,
    "agreement": agreement,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *SEEDS, CLASSIC], default=[*PARTS, *SEEDS, CLASSIC])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    call = Call(arguments)
    call.out.mkdir(parents=True, exist_ok=True)
    campaigns = {name: lambda call, name=name: call.campaign(name, 2 if call.quick else SEEDS[name]) for name in SEEDS}
    for name, part in (PARTS | campaigns | {CLASSIC: classic}).items():
        path = call.out / f"{name}.json"
        if name not in arguments.only or path.is_file():
            continue
        if call.left < 20:
            print(f"{name}: no time left; the same command goes on with it")
            break
        print(f"{name} ({call.left:.0f} s left)", flush=True)
        try:
            record = part(call)
        except Interrupted:
            raise
        except ThumbnetError as error:
            print(f"  failed: {error}")
            continue
        if record is None:
            print("  not all of it fitted; the same command goes on with it")
        else:
            write_json(path, record)


if __name__ == "__main__":
    main()
