"""The real command line in processes that start at once: a server that has imported everything forks them.

Each runs `thumbnet` with its output in files, and may be killed like any other process. They compute with one thread:
beside other work two wait for each other at every step.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "cyclopts",
        "thumbnet.training.loop",
        "thumbnet.plots.curves",
        "thumbnet.report.page",
        "thumbnet.studies.study",
        "thumbnet.doctor.dataset",
        "thumbnet.data.embedded",
        "readers",
    ]
)  # fmt: skip; nothing of thumbnet.cli, whose clock starts when it is imported

# A second of training with everything that draws at random switched on, a checkpoint after almost every step.
TRAIN = """
    train fashion-mini --recipe general --widths 8 16 16 --epochs 2 --batch-size 1000 --micro-batch 500 --dropout 0.2
    --zoom 0.1 --shift 0.1 --crop 1 --jitter 0.1 --cutout 6 --cutmix 0.4 --mixup 0.3 --mix-until 0.9 --stem-until 0.5
    --resolution 0.75 1 --hardest 0.6 --hardest-after 0.2 --device cpu --threads 1 --precision fp32 --no-report
""".split()  # noqa: SIM905


def begin(words, log, prepare=None, *, errors=None):
    """Start `thumbnet WORDS`, its messages in the file `errors` or with its output in `log`; `prepare` is called first."""
    files = str(log), str(errors or log)
    process = CONTEXT.Process(target=in_process, args=([str(word) for word in words], files, prepare))
    process.start()
    return process


def in_process(words, files, prepare):
    """The whole life of such a process."""
    import torch

    os.setpgrp()
    for place, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), place)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    sys.argv = ["thumbnet", *words]
    if prepare:
        prepare()
    from thumbnet.cli.main import run

    sys.exit(run(words))


def enter(folder, environment):
    """To prepare with: go to a folder, with exactly these environment variables."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def instead(**flags):
    """`TRAIN` with other values for some of its flags."""
    words = list(TRAIN)
    for name, values in flags.items():
        start = words.index(f"--{name.replace('_', '-')}") + 1
        end = next(place for place in range(start, len(words)) if words[place].startswith("--"))
        words[start:end] = str(values).split()
    return words


def training(folder, *options, words=TRAIN):
    """The words that begin, or go on with, the run of `TRAIN` in a folder."""
    return [*words, "--out", folder, *options, *(["--resume"] if (Path(folder) / "recipe.toml").is_file() else [])]


def send(process, number):
    """A signal to a process that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def exit_code(process, seconds=60):
    """Wait for the end; negative for a signal. A process that does not end is killed and is an error."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the process did not end within {seconds} s")
    return process.exitcode


def wait_for(happened, process, seconds=60):
    """Until `happened()` or the end of the process; True where it happened."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.is_alive():
        if happened():
            return True
        time.sleep(0.0005)
    return False
