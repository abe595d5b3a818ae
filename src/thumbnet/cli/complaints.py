"""What is wrong with a line that was typed, in one line of ours: what was received, and what to type."""

import dataclasses
import difflib
from typing import get_origin

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from thumbnet.recipes.recipe import Recipe

SYNONYMS = {  # what other programs call our flags
    "--lr": "--learning-rate", "--bs": "--batch-size", "--wd": "--weight-decay", "--arch": "--model", "--net": "--model",
    "--opt": "--optimizer", "--gpu": "--device cuda", "--cpu": "--device cpu", "--fp16": "--precision bf16",
    "--amp": "--precision bf16", "--tta": "--views", "--pretrained": "--start-from", "--weights": "--start-from",
    "--init": "--start-from", "--class-weights": "--balance", "--class-weight": "--balance",
}  # fmt: skip
YES_OR_NO = ("yes", "no", "true", "false", "on", "off")
SWITCHES = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Recipe) if field.type is bool}
LISTS = {  # flags that take every value up to the next flag
    "--" + field.name.replace("_", "-") for field in dataclasses.fields(Recipe) if get_origin(field.type) is tuple
}


def in_our_words(error: CycloptsError, usages: dict[str, str]) -> str:
    """The message; `usages` holds, for each command, what follows its name."""
    name = error.command_chain[0] if error.command_chain else ""
    if isinstance(error, UnknownOptionError):
        return unknown_option(error, name)
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        near = difflib.get_close_matches(error.unused_tokens[0], usages, n=1)
        hint = f"did you mean {near[0]}?" if near else "thumbnet --help lists all"
        return f"unknown command {error.unused_tokens[0]!r}; {hint}"
    if isinstance(error, MissingArgumentError) and name and error.argument:
        return missing(error, name, usages[name])
    if isinstance(error, UnusedCliTokensError) and name and error.unused_tokens:
        return unexpected(error.unused_tokens[0], list(error.root_input_tokens or ()), name, usages[name])
    if isinstance(error, CoercionError) and error.token and error.token.keyword in LISTS and "," in error.token.value:
        apart = " ".join(error.token.value.replace(",", " ").split())
        return (
            f"{error.token.keyword} {error.token.value}: separate the values with spaces: {error.token.keyword} {apart}"
        )
    if isinstance(error, CoercionError) and error.token and error.target_type in (float, float | None):
        return f"{error.token.keyword} {error.token.value}: {error.token.value!r} is not a number"
    return " ".join(str(error).split())


def unknown_option(error: UnknownOptionError, name: str) -> str:
    """With the flag that was meant, where one is near or is called so elsewhere."""
    received, source = error.token.keyword or error.token.value, error.token.source
    received = received.strip("[]")  # of files
    known = sorted({flag for argument in error.argument_collection for flag in argument.names if flag.startswith("--")})
    meant = SYNONYMS.get(received)
    if meant is None or meant.split()[0] not in known:
        asked = "--" + received.strip("-").split("=")[0].replace("_", "-")
        meant = next(iter(difflib.get_close_matches(asked, known, n=1)), None)
    if source not in ("", "cli"):
        hint = (
            f"did you mean {meant.strip('-').replace('-', '_')}?"
            if meant
            else f"thumbnet {name} --help lists all options"
        )
        return f"unknown option {received} in {source}; {hint}"
    return f"unknown option {received}; " + (
        f"did you mean {meant}?" if meant else f"thumbnet {name} --help lists all options"
    )


def missing(error: MissingArgumentError, name: str, usage: str) -> str:
    """What is missing, and where a list took it for one of its values, that."""
    assert error.argument is not None
    if error.argument.name.startswith("-"):
        return f"{error.argument.name} needs a value; see thumbnet {name} --help"
    words = usage.split()
    what = words[min(error.argument.index or 0, len(words) - 1)].strip("[].")
    if taken := taken_by_a_list(list(error.root_input_tokens or ())):
        flag, value = taken
        return f"{what} is missing: {value!r} was read as a value of {flag}; type thumbnet {name} {value} {flag} ..."
    return f"{what} is missing; type thumbnet {name} {usage} [OPTIONS]"


def taken_by_a_list(tokens: list[str]) -> tuple[str, str] | None:
    """The list flag, and the value it took that is no number."""
    flag = None
    for token in tokens:
        if token.startswith("--"):
            flag = token if token in LISTS else None
        elif flag and not is_number(token) and "=" not in token:
            return flag, token
    return None


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unexpected(token: str, tokens: list[str], name: str, usage: str) -> str:
    """A word that belongs nowhere; a yes or no behind a switch, which takes none."""
    before = tokens[tokens.index(token) - 1] if token in tokens[1:] else ""
    switch = before.replace("--no-", "--", 1)
    if switch in SWITCHES and token.lower() in YES_OR_NO:
        return f"{before} takes no value, and {token!r} follows it; type {switch} or --no-{switch.removeprefix('--')}"
    return f"{token!r} is an unexpected argument; type thumbnet {name} {usage} [OPTIONS]"
