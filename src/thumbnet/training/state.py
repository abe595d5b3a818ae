"""The state of training: where it stands, the sums of the running epoch, and how it is saved and restored."""
# Shapes: N training images, B batch, K classes.

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thumbnet.errors import TrainingFailed
from thumbnet.judging.evaluation import Scores
from thumbnet.own_code import is_own, shown
from thumbnet.recipes.recipe import Recipe, has_effect
from thumbnet.recipes.schedule import learning_rate, total_steps
from thumbnet.runs.checkpoints import Arrays, check_arrays
from thumbnet.runs.run import Run
from thumbnet.training.own_state import OF_OWN, of_own_optimizer, put_back_own
from thumbnet.training.selection import UNKNOWN, hardness
from thumbnet.words import duration


@dataclass
class Position:
    """Where training stands, and the sums of the epoch so far. With weights and optimiser it is the whole state."""

    totals: Tensor  # 4, on the device: sums of loss, hits, hits among the five likeliest; number of images
    losses: Tensor  # N, on the device: of each training image when last trained on; empty where all are trained on
    epoch: int = 0  # epochs finished
    step: int = 0  # steps of the running epoch finished
    began: float = 0.0  # when this process began, on time.perf_counter()'s clock
    saved: float = 0.0  # when the last checkpoint was written, on the same clock
    first: tuple[int, int] = (0, 0)  # epoch and step at which this process began, for its speed
    seconds_before: float = 0.0  # on the training clock in earlier processes
    training_seconds: float = 0.0  # of the running epoch's steps, up to `running_since`
    running_since: float | None = None  # None while no steps are being made

    def count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch; stays on the device."""
        likeliest = logits.detach().topk(min(5, logits.shape[1]), dim=1).indices  # B 5
        hits = (likeliest == labels[:, None]).to(loss.dtype)
        images = torch.full_like(loss.detach(), len(labels))
        self.totals += torch.stack((loss.detach() * images, hits[:, 0].sum(), hits.sum(), images)).to(self.totals.dtype)

    def keep_losses(self, batch: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Note how hard the images at the positions `batch` (B) were, where that decides what is trained on."""
        if len(self.losses):
            self.losses[batch] = hardness(logits, targets, self.losses[batch])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it beside numbers."""
        return {"totals": self.totals} | ({"losses": self.losses} if len(self.losses) else {})

    def begin_epoch(self) -> None:
        self.running_since = time.perf_counter()

    def end_training(self) -> None:
        """The epoch's steps are done; what follows is validation."""
        self.totals.tolist()  # waits for a GPU, where they may be queued only
        self.training_seconds, self.running_since = self.seconds_in_epoch(), None

    def next_epoch(self) -> None:
        self.epoch, self.step, self.training_seconds = self.epoch + 1, 0, 0.0
        self.totals.zero_()

    def seconds_in_epoch(self) -> float:
        """Seconds spent on the steps of the running epoch."""
        running = 0.0 if self.running_since is None else time.perf_counter() - self.running_since
        return self.training_seconds + running

    def seconds(self) -> float:
        """Seconds on the training clock, those of earlier processes included."""
        return self.seconds_before + time.perf_counter() - self.began

    def seconds_since_save(self) -> float:
        return time.perf_counter() - self.saved

    def line(self, recipe: Recipe, steps: int) -> str:
        """Epoch, loss, accuracy, speed and time left, for people."""
        loss, hits, _, images = self.totals.tolist()
        done = (self.epoch - self.first[0]) * steps + self.step - self.first[1]
        seconds = time.perf_counter() - self.began
        left = seconds / done * (total_steps(recipe, steps) - self.epoch * steps - self.step)
        return (
            f"epoch {self.epoch + 1}/{math.ceil(recipe.epochs)}  loss {loss / images:.4f}  accuracy {hits / images:.2%}  "
            f"{done * recipe.batch_size / seconds:,.0f} images/s  {duration(left)} left"
        )

    def row(
        self, recipe: Recipe, steps: int, penalty: float, scores: Scores | None, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """One row of metrics.jsonl. Training figures are means over the epoch's augmented batches.

        Of an optimiser of the user's own the rate is that of its first group.
        """
        rate = learning_rate(recipe, self.epoch, self.step - 1, steps)  # of the epoch's last step
        if is_own(recipe.optimizer):
            rate = float(optimizer.param_groups[0]["lr"])
        loss, hits, hits5, images = self.totals.tolist()
        return {
            "epoch": self.epoch + 1,
            "learning_rate": rate,
            "epochs": recipe.epochs,  # of the whole run, as planned then
            "train_loss": loss / images,
            "train_accuracy": hits / images,
            "train_top5": hits5 / images,
            "validation_loss": scores and scores.loss,
            "validation_accuracy": scores and scores.accuracy,
            "validation_top5": scores and scores.top5,
            "validation_balanced_accuracy": scores and scores.balanced_accuracy,
            "l2_penalty": penalty,
            "training_seconds": round(self.training_seconds, 3),
            "images_per_second": round(images / self.training_seconds, 1),
        }


def save(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write the whole state of training as a checkpoint. Raises `TrainingFailed` where a number in it is not finite."""
    tensors = whole_state(model, optimizer, run.recipe) | position.tensors()
    refuse_non_finite(tensors, run, position)
    place = {"epoch": position.epoch, "step": position.step, "epochs": run.recipe.epochs}
    times = {"training_seconds": position.seconds_in_epoch(), "seconds": position.seconds()}
    run.save_checkpoint(tensors, place | times)
    position.saved = time.perf_counter()


def whole_state(model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe) -> dict[str, Tensor]:
    """Every tensor that the next step depends on, by name: `model.NAME` and `optimizer.KEY.NAME`; of the user's own more."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{key}.{name}"] = value
    if is_own(recipe.optimizer):
        tensors |= of_own_optimizer(model, optimizer, shown(recipe.optimizer))
    return tensors


def put_back(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Give a model and its optimiser, which has made no step, what `whole_state` gave."""
    model.load_state_dict(part_of(tensors, "model"))
    parameters = dict(model.named_parameters())
    for name, tensor in part_of(tensors, "optimizer").items():
        key, parameter = name.split(".", 1)
        state = optimizer.state[parameters[parameter]]
        if key not in state:
            whole = parameters[parameter]
            like = whole if form_of(whole) == form_of(tensor) else tensor  # not the step counter, which is a scalar
            state[key] = torch.empty_like(like, device=device, requires_grad=False)  # with the strides of the parameter
        state[key].copy_(tensor)  # in place: a recording of an earlier run's steps is of this very memory
    put_back_own(tensors, parameters, optimizer)


def refuse_non_finite(tensors: Mapping[str, Tensor], run: Run, position: Position) -> None:
    """Raise `TrainingFailed` where a number of these is NaN or infinite."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise diverged(run, f"{name} holds numbers that are not finite", position.epoch, position.step)


def diverged(run: Run, what: str, epoch: int, step: int) -> TrainingFailed:
    """The error for numbers that left the finite ones, after so many epochs and steps, with what to do."""
    rate = run.recipe.learning_rate
    slower = " or a longer --warmup" if has_effect(run.recipe, "warmup") else ""
    return TrainingFailed(
        f"{what} in epoch {epoch + 1}, step {step}: the weights diverged; start another run "
        f"with --learning-rate {rate / 2:g} (now {rate:g}){slower}; {run.path} is left as it is"
    )


def restore(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    began: float,
    say: Callable[[str], None],
) -> Position:
    """Put the newest checkpoint that is intact into model and optimiser; a run without one begins at the beginning.

    The run's recipe has the epochs that were planned when it was saved. Tells `say` of checkpoints that had to be passed over.
    """
    precise = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    totals = torch.zeros(4, dtype=precise, device=device)
    losses = torch.full((run.data["train"] if run.recipe.hardest < 1 else 0,), UNKNOWN, device=device)
    position = Position(totals, losses, saved=began, began=began)
    own = is_own(run.recipe.optimizer)
    checkpoint = run.load_checkpoint(partial(check_state, model=model, position=position, own=own))
    if checkpoint is None:
        return position
    for reason in checkpoint.passed_over:
        say(f"note: {reason}; going on from the one before")
    tensors, place = {name: torch.from_numpy(array) for name, array in checkpoint.arrays.items()}, checkpoint.position
    if place["epochs"] != run.recipe.epochs:
        say(
            f"note: going on with the {place['epochs']:.2f} epochs planned last, not the {run.recipe.epochs:.2f} planned first"
        )
        run.recipe = replace(run.recipe, epochs=place["epochs"])
    put_back(tensors, model, optimizer, device)
    return replace(
        position,
        totals=tensors["totals"].to(position.totals),
        losses=tensors["losses"].to(position.losses) if len(position.losses) else position.losses,
        epoch=place["epoch"],
        step=place["step"],
        training_seconds=place["training_seconds"],
        seconds_before=place["seconds"],
        first=(place["epoch"], place["step"]),
    )


def check_state(arrays: Arrays, *, model: nn.Module, position: Position, own: bool = False) -> None:
    """Raise `Unfit` unless the arrays are a state of this model: its tensors, and the optimiser's for its parameters.

    What an optimiser of the user's `own` keeps is nobody else's to know.
    """
    expected = {f"model.{name}": form_of(tensor) for name, tensor in model.state_dict().items()}
    parameters = {name: form_of(parameter) for name, parameter in model.named_parameters()}
    for name in arrays:
        kind, _, rest = name.partition(".")
        key, _, parameter = rest.partition(".")
        if own and kind in ("optimizer", *OF_OWN):
            expected[name] = (arrays[name].shape, str(arrays[name].dtype))
        elif kind == "optimizer" and parameter in parameters:
            expected[name] = ((), "float32") if key == "step" else parameters[parameter]
    check_arrays(arrays, expected | {name: form_of(tensor) for name, tensor in position.tensors().items()})


def form_of(tensor: Tensor) -> tuple[tuple[int, ...], str]:
    """Shape, and type by its name."""
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def part_of(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `kind` and a dot, without it."""
    return {name.removeprefix(f"{kind}."): tensor for name, tensor in tensors.items() if name.startswith(f"{kind}.")}
