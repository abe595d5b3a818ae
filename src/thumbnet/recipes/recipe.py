"""A recipe: everything that changes the result of a run, and nothing that does not. Flat, frozen, checked when made.

Each field states its meaning, unit and range once, here; the command line's flags and help, the documentation and the
checks are read from it. This module imports nothing heavy, so that a misspelt flag is answered at once.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from thumbnet.errors import UserError, unknown_name
from thumbnet.models.registry import MODELS, OPEN_MODELS, check_model, dropout_places
from thumbnet.own_code import as_own, by_content, is_own, shown, values_of
from thumbnet.words import printable

FEWEST_EPOCHS = 0.01  # less is no training of any data set here
OPTIMIZERS = ("adam", "adamw", "sgd", "muon")


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its meaning and range: low <= value <= high, and value < below; or the names there are.

    `own`: functions, of which a Python file of the user's, named instead, has one.
    """
    metadata = {"help": help, "low": low, "high": high, "below": below, "choices": choices, "own": own}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: network, augmentation, optimiser, schedule, and the seed that all randomness derives from."""

    name: str = dataclasses.field(metadata={"help": "the named recipe this one is or started from"})
    model: str = setting(
        "small_resnet",
        "architecture; `thumbnet list models` shows them; or a Python file of yours with a function `network`",
        own=("network",),
    )
    widths: tuple[int, ...] = setting(
        (), "channels of each group, where the model leaves them open", low=1, high=16_384
    )
    depth: int = setting(
        0, "convolutions in each group, where the model leaves it open; 0: the model's own", low=0, high=1000
    )
    dropout: tuple[float, ...] = setting((), "dropout rates, in the places that the model defines", low=0, below=1)
    members: int = setting(
        1,
        "networks, 64 at most, trained side by side on the same batches, whose probabilities are averaged",
        low=1,
        high=64,
    )
    start_from: str = setting(
        "", "a finished run to begin with the weights of; the command line takes its network, too, where none is given"
    )
    epochs: float = setting(
        20,
        "as many steps as passes over the training images take; 1.5 ends in the middle of the second",
        low=FEWEST_EPOCHS,
        high=1_000_000,
    )
    batch_size: int = setting(64, "images per step; the ragged last batch of an epoch is left out", low=2, high=2**20)
    micro_batch: int = setting(0, "images computed at once, normalised among themselves; 0: the whole batch", low=0)
    hardest: float = setting(
        1.0,
        "train on this fraction of each stretch of the images, those with the largest losses when trained on last; 1: on all",
        low=0.5,
        high=1,
    )
    hardest_after: float = setting(
        0.3, "hardest: fraction of the run after which it is the hardest; before, as many at random", low=0, high=1
    )
    optimizer: str = setting(
        "sgd",
        "update rule: adam, adamw, sgd or muon; or a Python file of yours with a function `optimizer`",
        choices=OPTIMIZERS,
        own=("optimizer",),
    )
    learning_rate: float = setting(0.1, "peak learning rate; the schedule multiplies it by a number in [0, 1]", low=0)
    schedule: Literal["constant", "steps", "cosine", "linear"] = setting("cosine", "schedule of the learning rate")
    warmup: float = setting(
        0.0, "cosine, linear: fraction of the run over which the learning rate rises from 0", low=0, below=1
    )
    drop_after: tuple[float, ...] = setting(
        (), "steps: fractions of the run after which the learning rate drops", low=0
    )
    drop_factors: tuple[float, ...] = setting(
        (), "steps: what the peak learning rate is multiplied by from there on", low=0, high=1
    )
    momentum: float = setting(0.9, "sgd, muon: Nesterov momentum", low=0, below=1)
    bias_rate: float = setting(
        0.05, "muon: learning rate of biases and shifts, for a loss summed over the batch", low=0
    )
    head_rate: float = setting(0.67, "muon: learning rate of dense layers, for a loss summed over the batch", low=0)
    beta1: float = setting(0.9, "adam, adamw: decay of the mean of the gradients", low=0, below=1)
    beta2: float = setting(0.999, "adam, adamw: decay of the mean of their squares", low=0, below=1)
    epsilon: float = setting(1e-8, "adam, adamw: added to the denominator", low=0)
    l2: float = setting(0.0, "adam, sgd: factor of the sum of squared kernels in the loss", low=0)
    weight_decay: float = setting(0.0, "adamw: decoupled decay, per step weights shrink by rate * this", low=0)
    penalize: Literal["kernels", "stages"] = setting(
        "kernels", "what l2 and weight_decay apply to: every kernel, or only those of the stages"
    )
    loss: str = setting(
        "cross_entropy",
        "what is minimised; or a Python file of yours with a function `loss`",
        choices=("cross_entropy",),
        own=("loss",),
    )
    label_smoothing: float = setting(0.0, "share of the target spread over all classes", low=0, below=1)
    balance: float = setting(
        0.0,
        "weight each image's loss by (images of the largest class / of its own) to this power; 1: all classes count alike",
        low=0,
        high=1,
    )
    normalize: Literal["dataset", "none"] = setting(
        "dataset", "subtract mean and divide by std of the training images, or not"
    )
    flip: bool = setting(True, "mirror left to right with probability one half; without it, nothing is mirrored")
    alternate_flip: bool = setting(False, "flip: mirror each image in every second epoch instead of at random")
    stem_until: float = setting(
        0.2, "fraction of the run in which the bias of the whitening layer is trained", low=0, high=1
    )
    resolution: tuple[float, ...] = setting(
        (1.0,), "the image side times these to train at, each for an equal share of the run", low=0.25, high=16
    )
    zoom: float = setting(0.0, "height and width zoomed independently by 1 - zoom to 1 + zoom", low=0, below=1)
    shift: float = setting(0.0, "shift by up to this fraction of the side", low=0, below=1)
    crop: int = setting(0, "random crop: pixels of reflected border within which the image is shifted", low=0)
    jitter: float = setting(0.0, "brightness and contrast changed by up to this fraction", low=0, below=1)
    cutout: int = setting(0, "side in pixels of a square blanked at a random place", low=0)
    cutmix: float = setting(
        0.0,
        "fraction of the batches whose images get a rectangle of another, with its share of the label",
        low=0,
        high=1,
    )
    mixup: float = setting(
        0.0, "fraction of the batches whose images are blended with another, labels too", low=0, high=1
    )
    mix_until: float = setting(1.0, "fraction of the run after which cutmix and mixup end", low=0, high=1)
    augment: str = setting(
        "",
        "a Python file of yours with a function `augment` or `mix`, which change the images further",
        own=("augment", "mix"),
    )
    own: tuple[str, ...] = setting((), "values for other parameters of functions of yours, as gamma=2.5")
    views: Literal[1, 2, 6] = setting(
        1, "views of each image that `thumbnet bench` averages over (test-time augmentation)"
    )
    uncertain: float = setting(
        1.0, "fraction of the images, the least certain in one view, that get all the views", low=0, high=1
    )
    validation: float = setting(
        0.1, "fraction of the training images held out, stratified by class; 0 trains on all", low=0, below=1
    )
    folds: int = setting(
        0, "cut the training images into this many folds and hold one out; 0: hold out by `validation`", low=0
    )
    fold: int = setting(0, "which of the folds is held out, 0 to folds - 1", low=0)
    leave_out: str = setting(
        "",
        "a list of training images not to train on: a .csv file with a column image, as doctor --list writes, or a .txt file",
    )
    seed: int = setting(0, "weights, order, augmentation, dropout and the held-out part derive from it", low=0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        for name in PATHS:
            if given := getattr(self, name):  # not runs/latest, which will be another, nor a place seen from here alone
                object.__setattr__(self, name, path := str(Path(given).resolve()))
                if printable(path) != path:  # TOML could not hold it
                    raise UserError(f"{name} {path!r} has bytes that are no UTF-8; rename it first")
        if self.epochs % 1 == 0:
            object.__setattr__(self, "epochs", int(self.epochs))  # to be shown as 20, not 20.0
        if self.augment and not is_own(self.augment):
            raise UserError(f"augment is {self.augment!r}; give the path of a Python file")
        check_model(self.model)
        if self.optimizer == "muon" and not (self.model in OPEN_MODELS or is_own(self.model)):
            raise UserError(
                f"the rates of muon here are for {' and '.join(OPEN_MODELS)}; for model {self.model!r} take --recipe plain, "
                "or give --optimizer and --learning-rate"
            )
        check_model(self.model, self.dropout, self.widths, self.depth)
        if self.folds == 1 or self.fold >= max(1, self.folds):
            raise UserError(
                f"folds {self.folds} and fold {self.fold}: give 2 folds or more, and a fold from 0 to folds - 1"
            )
        if len(self.drop_after) != len(self.drop_factors):
            raise UserError(
                f"drop_after has {len(self.drop_after)} places and drop_factors {len(self.drop_factors)}; give the same number"
            )
        if not self.resolution:
            raise UserError("resolution has no parts; give at least one, as in 0.75 1")
        if self.cutmix + self.mixup > 1:
            raise UserError(
                f"cutmix {self.cutmix} and mixup {self.mixup} are parts of the batches; they sum to at most 1"
            )
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise UserError(f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}")
        if self.weight_decay and not (self.optimizer == "adamw" or is_own(self.optimizer)):
            same = f"set l2 {self.weight_decay / 2:g}, which torch.optim calls weight_decay {self.weight_decay:g}"
            hint = "muon keeps every norm fixed" if self.optimizer == "muon" else f"with {self.optimizer} {same}"
            raise UserError(f"weight_decay {self.weight_decay} is for adamw; {hint}")
        if self.l2 and self.optimizer not in ("adam", "sgd"):
            hint = "muon keeps every norm fixed" if self.optimizer == "muon" else "set weight_decay instead"
            raise UserError(f"l2 {self.l2} is for adam and sgd; {hint}")

    @property
    def network(self) -> str:
        """What is trained, in words: `speednet`, or `2 x speednet`."""
        name = shown(self.model) if is_own(self.model) else self.model
        return name if self.members == 1 else f"{self.members} x {name}"

    @property
    def own_code(self) -> tuple[str, ...]:
        """The files of the user's own that it names (own_code.py)."""
        return tuple(value for name in OWN if is_own(value := getattr(self, name)))

    @property
    def test_views(self) -> int:
        """`views`, or one where nothing was ever mirrored: the others average over mirror images."""
        return self.views if self.flip else 1

    @property
    def cut(self) -> dict[str, Any]:
        """How the recipe holds images out, and leaves some out, as `Dataset.with_validation` takes it."""
        held_out = {"fraction": self.validation, "seed": self.seed, "folds": self.folds, "fold": self.fold}
        return held_out | {"leave_out": self.leave_out}


# Fields that older run folders and records lack, with what they were before there was a choice.
NEWER_FIELDS: dict[str, Any] = {
    "members": 1, "hardest": 1.0, "hardest_after": 0.3, "start_from": "", "balance": 0.0, "leave_out": "",
    "loss": "cross_entropy", "augment": "", "own": (),
}  # fmt: skip

NETWORK = ("model", "widths", "depth", "members")  # fields that say which weights there are
# Fields that say where something lies, and how many last parts of the path tell what it is.
PATHS = {"start_from": 2, "leave_out": 1}
OWN = ("model", "optimizer", "loss", "augment")  # fields that may name a Python file of the user's (own_code.py)


OF_OWN = "own."  # begins the name of one value among `own`


def reads(recipe: Recipe, *optimizers: str) -> bool:
    """Whether the optimiser is one of these, or may read any field, as the user's own may."""
    return recipe.optimizer in optimizers or is_own(recipe.optimizer)


# What a field needs to have any effect: fields that decide it, in words, and whether a recipe has it.
NEEDS: dict[str, tuple[tuple[str, ...], str, Callable[[Recipe], bool]]] = {
    "hardest": (
        ("cutmix", "mixup", "mix_until"),
        "batches that are not mixed",
        lambda r: r.hardest == 1 or r.cutmix + r.mixup < 1 or r.mix_until < 1,
    ),
    "hardest_after": (("hardest",), "hardest below 1", lambda r: r.hardest < 1),
    "momentum": (("optimizer",), "optimizer sgd or muon", lambda r: reads(r, "sgd", "muon")),
    "bias_rate": (("optimizer",), "optimizer muon", lambda r: reads(r, "muon")),
    "head_rate": (("optimizer",), "optimizer muon", lambda r: reads(r, "muon")),
    "beta1": (("optimizer",), "optimizer adam or adamw", lambda r: reads(r, "adam", "adamw")),
    "beta2": (("optimizer",), "optimizer adam or adamw", lambda r: reads(r, "adam", "adamw")),
    "epsilon": (("optimizer",), "optimizer adam or adamw", lambda r: reads(r, "adam", "adamw")),
    "warmup": (("schedule",), "schedule cosine or linear", lambda r: r.schedule in ("cosine", "linear")),
    "drop_after": (("schedule",), "schedule steps", lambda r: r.schedule == "steps"),
    "drop_factors": (("schedule",), "schedule steps", lambda r: r.schedule == "steps"),
    "label_smoothing": (("loss",), "loss cross_entropy", lambda r: not is_own(r.loss)),
    "balance": (("loss",), "loss cross_entropy", lambda r: not is_own(r.loss)),
    "penalize": (("l2", "weight_decay"), "l2 or weight_decay", lambda r: bool(r.l2 or r.weight_decay)),
    "normalize": (("start_from",), "start_from left out", lambda r: not r.start_from),
    "alternate_flip": (("flip",), "flip", lambda r: r.flip or not r.alternate_flip),
    "stem_until": (("model",), " or ".join(f"model {name}" for name in OPEN_MODELS), lambda r: r.model in OPEN_MODELS),
    "mix_until": (("cutmix", "mixup"), "cutmix or mixup", lambda r: bool(r.cutmix or r.mixup)),
    "own": (OWN, "a Python file of yours", lambda r: bool(r.own_code)),
    "views": (("flip",), "flip", lambda r: r.flip or r.views == 1),
    "uncertain": (("views", "flip"), "flip and views 2 or 6", lambda r: r.test_views > 1),
    "validation": (("folds",), "folds 0", lambda r: not r.folds),
}


def vary(recipe: Recipe, **changes: Any) -> Recipe:
    """A copy with some fields changed; with another model, what it cannot take of the network before is left out.

    With an optimiser of the user's own, which is asked for no l2, so is that.

    Raises `UserError` on an unknown field, naming the nearest, and on a bad value.
    """
    known = [field.name for field in dataclasses.fields(Recipe) if field.name != "name"]
    for name in changes:
        if name not in known:
            raise unknown_name("recipe field", name, known)
    left_out = not_for(recipe, changes.get("model")) | ({"l2": 0.0} if is_own(changes.get("optimizer")) else {})
    return dataclasses.replace(recipe, **(left_out | changes))


def value_in(recipe: Recipe, name: str) -> Any:
    """What a recipe has as a field, or, where fields are searched, as `own.gamma`; None for a value that it does not give."""
    if name.startswith(OF_OWN):
        return values_of(recipe.own).get(name.removeprefix(OF_OWN))
    return getattr(recipe, name)


def with_values(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """`vary`, where changes may be of such values, too; the others of them stay."""
    own = {name.removeprefix(OF_OWN): given for name, given in changes.items() if name.startswith(OF_OWN)}
    fields = {name: given for name, given in changes.items() if not name.startswith(OF_OWN)}
    return vary(recipe, **fields, **({"own": values_of(recipe.own) | own} if own else {}))


def not_for(recipe: Recipe, model: Any) -> dict[str, Any]:
    """The fields of a recipe's network that another model does not take, with values that leave them to the model."""
    if model == recipe.model or not (
        is_own(model) or model in list(MODELS)
    ):  # of which it is told when the recipe is made
        return {}
    left: dict[str, Any] = {"penalize": "kernels"} if model in OPEN_MODELS else {"widths": (), "depth": 0}
    if is_own(model) or len(recipe.dropout) != dropout_places(model):
        left["dropout"] = ()
    return left


def has_effect(recipe: Recipe, name: str) -> bool:
    """Whether the field's value changes anything in a recipe like this."""
    return name not in NEEDS or NEEDS[name][2](recipe)


def check_effects(recipe: Recipe, names: Iterable[str]) -> None:
    """Raise `UserError` where a field that somebody set changes nothing in the recipe."""
    for name in names:
        if not has_effect(recipe, name):
            raise UserError(f"{name} has no effect without {NEEDS[name][1]}; leave it out, or give that too")
    if (recipe.l2 or recipe.weight_decay) and recipe.penalize == "stages" and recipe.model in OPEN_MODELS:
        raise UserError(
            f"penalize stages reaches no kernel of model {recipe.model!r}, which has no stages; give penalize kernels"
        )


def without_idle(recipe: Recipe, base: Recipe) -> Recipe:
    """The recipe with fields that change nothing in it as `base` has them, so that equal runs have equal recipes."""
    return vary(recipe, **{name: getattr(base, name) for name in NEEDS if not has_effect(recipe, name)})


def differences(recipe: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields in which two recipes differ, as name -> (value in the first, value in the second)."""
    pairs = {
        field.name: (getattr(recipe, field.name), getattr(other, field.name)) for field in dataclasses.fields(Recipe)
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def checked(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value in the field's type, or a `UserError` that says what was received and what is wanted."""
    if (functions := field.metadata.get("own")) and is_own(value):
        return by_content(value, functions)
    if (choices := field.metadata.get("choices")) and value not in choices:
        raise unknown_name(field.name, str(value), choices)
    if get_origin(field.type) is Literal:
        if value not in get_args(field.type):
            raise UserError(f"{field.name} is {value!r}; choose one of {', '.join(map(str, get_args(field.type)))}")
        return value
    if field.name == "own" and isinstance(value, Mapping | tuple | list | str):
        return as_own([value] if isinstance(value, str) else value)
    if get_origin(field.type) is tuple:
        if not isinstance(value, tuple | list):
            raise UserError(f"{field.name} is {value!r}; give a list of numbers")
        return tuple(in_range(field, number_of_type(get_args(field.type)[0], field, item)) for item in value)
    if field.type in (int, float):
        return in_range(field, number_of_type(field.type, field, value))
    value = str(value) if isinstance(value, Path) else value
    if not isinstance(value, field.type):  # type: ignore[arg-type]
        raise UserError(f"{field.name} is {value!r}; give a value of type {field.type.__name__}")  # type: ignore[union-attr]
    return value


def number_of_type(kind: Any, field: "dataclasses.Field[Any]", value: Any) -> int | float:
    """`value` as int or float; refuses booleans, text and fractions where a whole number is wanted."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and value % 1 != 0):
        raise UserError(f"{field.name} is {value!r}; give {'a whole number' if kind is int else 'a number'}")
    try:
        float(value)  # whole numbers too: no range here goes beyond
        return kind(value)
    except OverflowError:
        raise UserError(f"{field.name} has {len(str(value))} digits; give a smaller number") from None


def in_range(field: "dataclasses.Field[Any]", value: int | float) -> int | float:
    """`value` if it lies in the field's range, else a `UserError` naming the range."""
    low, high, below = (field.metadata.get(key) for key in ("low", "high", "below"))
    parts = []
    if low is not None:
        parts.append(f"{low} or more")
    if high is not None:
        parts.append(f"at most {high}")
    if below is not None:
        parts.append(f"below {below}")
    if not math.isfinite(value):
        raise UserError(f"{field.name} is {value}; it must be finite")
    fits = (low is None or value >= low) and (high is None or value <= high)
    if not fits or (below is not None and value >= below):
        given = f"{value:g}" if isinstance(value, float) else value
        raise UserError(f"{field.name} is {given}; it must be {' and '.join(parts)}")
    return value
