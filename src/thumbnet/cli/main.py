"""The `thumbnet` command: finds the subcommand, and turns errors into one line and an exit code."""

import time

STARTED = time.time()  # before everything else is imported: wall time is counted from here

import io  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import suppress  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402
from select import select  # noqa: E402
from typing import Annotated, Any  # noqa: E402

from cyclopts import App, CycloptsError, Parameter, config  # noqa: E402

from thumbnet.errors import ThumbnetError, UserError  # noqa: E402
from thumbnet.files import is_full  # noqa: E402
from thumbnet.own_code import blame, lacks_memory  # noqa: E402
from thumbnet.own_code import trust as trust_code  # noqa: E402
from thumbnet.processes import look_for_garbage_seldom  # noqa: E402
from thumbnet.reading import read_toml  # noqa: E402
from thumbnet.words import visible_lines  # noqa: E402

# 70 is EX_SOFTWARE of sysexits.h; a run that fails by its values has 1, and sweeps tell the two apart
RUN_FAILED, USER_ERROR, OUR_FAULT, KILLED_BY_SIGINT = 1, 2, 70, 130
PATIENCE = 1.0  # seconds for a pipe to take the last line
# What to make smaller, of the commands that have it.
SMALLER = {
    "train": "--batch-size or --image-size",
    "preview": "--batch-size or --image-size",
    "bench": "--batch-size or --image-size",
    "study": "--image-size",
    "sweep": "--image-size",
    "data": "--image-size",
    "doctor": "--image-size",
}

# Of each command, what follows its name in the usage line, and its help: the first paragraph stands in the list of commands.
COMMANDS = {
    "data": (
        "NAME|PATH",
        """Fetch, verify and convert a data set, and describe it.

Prints its classes, counts, licence and location.

Example: thumbnet data cifar10 --data-dir ~/Downloads""",
    ),
    "preview": (
        "NAME|PATH",
        """Draw images as stored and as augmented; estimate the cost of training.

Nothing is trained.

Example: thumbnet preview cifar10 --recipe cifar10-classic""",
    ),
    "train": (
        "NAME|PATH",
        """Train a classifier and write a run folder.

Validation images are cut from the training set; the test set stays closed until thumbnet evaluate RUN --split test.

Example: thumbnet train cifar10 --recipe cifar10-resnet18 --epochs 10""",
    ),
    "evaluate": (
        "RUN...",
        """Measure a finished run on held-out images.

Accuracy with its interval, top-5, loss, calibration, and each class; --robustness: on corrupted images. The test split is
locked: opening it is counted in the run folder.

Example: thumbnet evaluate runs/latest""",
    ),
    "predict": (
        "RUN|EXPORT IMAGE|FOLDER...",
        """Name the class of image files.

Example: thumbnet predict runs/latest photo.png folder/ --top 3""",
    ),
    "export": (
        "RUN FILE.onnx|FILE.pt2|FOLDER",
        """Write the network to a file that other programs use.

Uint8 images in, calibrated probabilities out; preprocessing is inside. The file is checked against the network; if its
answers differ, it is not kept. In a folder a card and a program are put beside it.

Example: thumbnet export runs/latest model.onnx""",
    ),
    "serve": (
        "RUN|EXPORT",
        """Classify images for the browsers and programs of this computer.

A page for people; for programs, POST /predict takes the bytes of an image and answers with JSON.

Example: thumbnet serve runs/latest""",
    ),
    "report": (
        "RUN...",
        """Write the report page of a run, or of several compared.

One HTML file that needs no network.

Example: thumbnet report runs/latest""",
    ),
    "compare": (
        "RUN...",
        """Compare runs: means, intervals, what can be claimed.

Runs of one recipe are a group, whatever their seeds.

Example: thumbnet compare runs/a runs/b --plot compared.png""",
    ),
    "study": (
        "FILE|classic",
        """Train variants of a recipe over seeds and compare them.

Called again, it goes on where it stopped.

Example: thumbnet study classic --scale 0.05""",
    ),
    "sweep": (
        "FILE",
        """Search for better values of recipe fields.

The best of the trials is trained again on fresh seeds, beside the baseline, and only that is claimed. Called again,
it goes on where it stopped.

Example: thumbnet sweep rates.toml --jobs 2""",
    ),
    "doctor": (
        "[NAME|PATH]",
        """Examine a data set for faults, or this machine.

Duplicates within and across splits, constant images, balance, suspect labels.

Example: thumbnet doctor cifar10""",
    ),
    "bench": (
        "RECIPE...",
        """Train recipes over several seeds and record accuracy and time.

Trains on every training image and measures on the test set, once per seed.

Example: thumbnet bench cifar10-83 --seeds 10""",
    ),
    "list": (
        "recipes|models|datasets|augmentations",
        """List recipes, models, datasets or augmentations.

With their sizes and the results recorded with the package.

Example: thumbnet list recipes""",
    ),
}


def make_app() -> App:
    """The parser. Commands are imported when they run or show their help, so that the rest answers at once."""
    app = App(
        name="thumbnet",
        help="Train, judge and ship classifiers of small images.",
        version=lambda: version("thumbnet"),
        help_epilogue="First steps: thumbnet train fashion-mini, then thumbnet evaluate runs/latest.",
        suppress_keyboard_interrupt=False,  # `run` says that it was stopped
        help_format="plaintext",  # the others load a Markdown parser, a third of the time that --help takes
    )
    for name, (arguments, text) in COMMANDS.items():
        function = f"thumbnet.cli.{name}:{name}{'_' if name == 'list' else ''}"
        app.command(function, name=name, help=in_paragraphs(text), usage=f"Usage: {usage_of(name, arguments)}")

    app.meta.suppress_keyboard_interrupt = False

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config_file: Annotated[
            Path | None, Parameter(name="--config", help="TOML file of options, below flags and above defaults")
        ] = None,
        trust: Annotated[
            list[Path] | None,
            Parameter(name="--trust", negative="", help="let this Python file run, wherever a recipe names it"),
        ] = None,
    ) -> Any:
        for path in [*(trust or ()), *code_typed(tokens)]:
            trust_code(path)
        if config_file:
            options = read_toml(config_file, "the config file")  # so that its faults are told with its name
            if tables := [name for name, value in options.items() if isinstance(value, dict)]:
                raise UserError(
                    f"{config_file}: the table [{tables[0]}] is not read; write its options at the top of the file"
                )
            app.config = (config.Toml(config_file, must_exist=True, use_commands_as_keys=False),)
        return app(tokens, exit_on_error=False, print_error=False, result_action="return_value")

    return app


CODE = re.compile(r"--(?:model|optimizer|loss|augment)(?:=(.*))?")  # flags that may name a Python file
TAKING_CODE = ("train", "preview", "bench")  # commands that have them


def code_typed(tokens: Sequence[str]) -> list[str]:
    """The Python files that somebody typed as values of flags: whoever does so wants them run."""
    if not tokens or tokens[0] not in TAKING_CODE:
        return []
    tokens, found = tokens[: tokens.index("--")] if "--" in tokens else tokens, []
    for flag, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if match := CODE.fullmatch(flag):
            found.append(match[1] or following)
    return [value for value in found if value.endswith(".py")]


def usage_of(name: str, arguments: str) -> str:
    """How a command is typed."""
    return f"thumbnet {name} {arguments} [OPTIONS]"


def in_paragraphs(text: str) -> str:
    """Each paragraph in one line, for the terminal to break."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def main() -> None:
    """Entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a terminal may lack the letters of a file's name
    look_for_garbage_seldom()
    code = run(sys.argv[1:])
    if code == KILLED_BY_SIGINT:
        os._exit(code)  # at once, also where half a line waits for a pipe that nobody reads
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line and give the exit code: 0 done, 1 failed, 2 the user can fix it, 70 our fault, 75 stopped."""
    try:
        make_app().meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # here, where a full disk is told in our words
    except CycloptsError as error:
        from thumbnet.cli.complaints import in_our_words

        usages = {name: arguments for name, (arguments, _) in COMMANDS.items()}
        return complain(in_our_words(error, usages), USER_ERROR)
    except ThumbnetError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return complain("stopped", KILLED_BY_SIGINT)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        discard_output()
    except OSError as error:
        if not is_full(error):
            path = error.filename or "a file"
            return complain(f"{path}: {error.strerror}; check the path and its permissions", USER_ERROR)
        if error.filename is None:  # none that was opened by name: stdout
            discard_output()
        return complain(
            f"{error.filename or 'the output'}: {error.strerror}; free some space and run again", USER_ERROR
        )
    except Exception as error:
        if lacks_memory(error):
            smaller = SMALLER.get(next((word for word in arguments if word in COMMANDS), ""))
            advice = f"try a smaller {smaller}" if smaller else "end what else needs much of it, and run again"
            return complain(f"out of memory; {advice}", RUN_FAILED)
        if told := blame(error):
            return complain(told, RUN_FAILED)
        import traceback

        traceback.print_exc()
        return OUR_FAULT
    return 0


def discard_output() -> None:
    """What of stdout is not written yet goes nowhere: Python would try again when it ends, and complain in its own words."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str, code: int) -> int:
    """One line on stderr, where there is somebody to read it."""
    if takes_a_line(sys.stderr):
        with suppress(OSError):  # a full disk, a closed terminal
            print(f"thumbnet: {visible_lines(message)}", file=sys.stderr, flush=True)
    return code


def takes_a_line(stream: Any) -> bool:
    """False for a pipe that is full and stays so: writing to it would hold us for good."""
    try:
        return bool(select([], [stream], [], PATIENCE)[1])
    except (OSError, ValueError):  # nothing that the system can watch
        return True


if __name__ == "__main__":
    main()
