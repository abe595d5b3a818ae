"""Why: where a network looked, by covering and by class activation, beside the training images nearest to its mind.

Both maps keep the resolution that small images need: the squares of the occlusion map move by an eighth of the side, and the
class-activation map is taken at the deepest layer that still has 8 x 8 places or more.
"""
# Shapes: N images, C channels, H and W height and width, D channels of a layer, K classes, M training images.

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thumbnet.augment import to_float
from thumbnet.backend import Backend
from thumbnet.data.batches import Split, whole
from thumbnet.data.images import is_image_name
from thumbnet.errors import UserError
from thumbnet.judging.evaluation import predict_logits
from thumbnet.models.ensemble import members_of

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset
    from thumbnet.shipping.classifier import Prediction
    from thumbnet.shipping.prediction import NetworkClassifier

LEAST_PLACES = 8  # along each side of the layer that is explained; at 4 x 4 a map of 32 pixels says nothing
NEIGHBOURS = 5
SEARCHED = 2_000  # training images compared with, evenly spread; the whole of CIFAR would cost half a minute
BATCH_SIZE = 250


@dataclass(frozen=True)
class Neighbour:
    """A training image whose embedding is near: the cosine of the angle between them is `similarity`, -1 to 1."""

    image: Tensor  # uint8 C H W
    label: int
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """Maps H W for one image and one class. `occlusion` is in nats of log-odds lost where the centre of a square covers;
    `activation` is in parts of its largest value, 0 to 1."""

    image: Tensor  # uint8 C H W
    target: int  # the class that is explained
    probability: float  # of that class
    occlusion: Tensor
    activation: Tensor
    neighbours: tuple[Neighbour, ...]


def explain(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    backend: Backend,
    *,
    training: Split | None = None,
    temperature: float = 1.0,
) -> list[Explanation]:
    """Maps for images uint8 N C H W and the classes N to explain, with neighbours among the `training` images if given.

    Of these, `SEARCHED` evenly spread ones are looked at. One view; maps and neighbours are computed in fp32, probabilities as
    `backend` says.
    """
    model.eval()
    x, targets = to_float(images.to(backend.device)), targets.to(backend.device)
    logits = predict_logits(
        model, whole(images, torch.zeros(len(images), dtype=torch.int64)).to(backend.device), backend
    )
    probabilities = (logits / temperature).softmax(1)
    covered, active = occlusion_maps(model, x, targets), activation_maps(model, x, targets)
    near = nearest(model, x, training, backend) if training is not None else [()] * len(images)
    return [
        Explanation(
            images[i].cpu(), int(targets[i]), probabilities[i, targets[i]].item(), covered[i], active[i], near[i]
        )
        for i in range(len(images))
    ]


@torch.no_grad()
def occlusion_maps(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """float32 N H W on the CPU: the log-odds of `targets` lost by covering a square around each place with the mean colour.

    Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901, section 4.2. Squares have a quarter of the side and move by half of
    that; where squares overlap, their losses are averaged. Negative where covering helps.
    """
    height, width = x.shape[2:]
    side = max(2, min(height, width) // 4)
    step = max(1, side // 2)
    base = log_odds(model(x), targets)  # N
    total, counts = torch.zeros(len(x), height, width, device=x.device), torch.zeros(height, width, device=x.device)
    colour = x.mean(dim=(2, 3), keepdim=True)  # N C 1 1
    for top in range(-step, height, step):
        for left in range(-step, width, step):
            rows, columns = slice(max(0, top), max(0, top + side)), slice(max(0, left), max(0, left + side))
            covered = x.clone()
            covered[:, :, rows, columns] = colour
            total[:, rows, columns] += (base - log_odds(model(covered), targets))[:, None, None]
            counts[rows, columns] += 1
    return (total / counts).cpu()


def log_odds(logits: Tensor, targets: Tensor) -> Tensor:
    """float32 N: the logarithm of p / (1 - p) of each image's target class."""
    right = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], float("-inf"))
    return (right - others.logsumexp(1)).float()


def activation_maps(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """float32 N H W on the CPU, 0 to 1: activation times gradient, summed over the channels of a layer, what is positive of it.

    HiResCAM, Draelos & Carin 2020, https://arxiv.org/abs/2011.08891; at the deepest layer with `LEAST_PLACES` along each
    side, or half the side of smaller images. Of an ensemble, summed over such layers of its members.
    """
    least = min(LEAST_PLACES, min(x.shape[2:]) // 2)
    members = members_of(model)
    deepest: dict[int, Tensor] = {}

    def keep(member: int, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= least and output.requires_grad:
            deepest[member] = output

    hooks = [
        module.register_forward_hook(partial(keep, number))
        for number, member in enumerate(members)
        for module in member.modules()
        if not list(module.children())
    ]
    try:
        with torch.enable_grad():
            score = log_odds(model(x), targets).sum()
    finally:
        for hook in hooks:
            hook.remove()
    if not deepest:  # images so small that no layer has room for a map
        return torch.zeros(len(x), *x.shape[2:])
    layers = list(deepest.values())
    gradients = torch.autograd.grad(score, layers, allow_unused=True)  # of a branch that leads nowhere
    products = [g * layer for g, layer in zip(gradients, layers, strict=True) if g is not None]
    if not products:
        return torch.zeros(len(x), *x.shape[2:])
    map_ = torch.stack(products).sum((0, 2))[:, None].detach().clamp(min=0)  # N 1 h w
    map_ = F.interpolate(map_.float(), x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (map_ / map_.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).cpu()


@torch.no_grad()
def embeddings(model: nn.Module, split: Split) -> Tensor:
    """float32 N D on the CPU, of length 1: what the network's last dense layer is given, or those of all members, alike long.

    Of one without dense layers, which a user's own may be, its logits.
    """
    members = members_of(model)
    given = [LastDense() for _ in members]
    hooks = [
        module.register_forward_hook(keep.see)
        for member, keep in zip(members, given, strict=True)
        for module in [*(module for module in member.modules() if isinstance(module, nn.Linear)), member]
    ]
    try:
        for images, _ in split.in_order(BATCH_SIZE):
            for keep in given:
                keep.begin(len(images))
            model(to_float(images).contiguous(memory_format=torch.channels_last))
    finally:
        for hook in hooks:
            hook.remove()
    parts = [F.normalize(torch.cat(keep.found), dim=1) for keep in given]
    return torch.cat(parts, dim=1) / len(parts) ** 0.5


class LastDense:
    """Hears, by hooks, what the last dense layer that takes one row for each image is given; the network's output without one."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []  # float32 B D on the CPU, by batch

    def begin(self, images: int) -> None:
        self.images, self.newest = images, torch.empty(0)

    def see(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            if inputs[0].ndim == 2 and len(inputs[0]) == self.images:
                self.newest = inputs[0]
        else:  # the member itself, which is through
            self.found.append((self.newest if len(self.newest) else output).float().cpu())


def nearest(model: nn.Module, x: Tensor, training: Split, backend: Backend) -> list[tuple[Neighbour, ...]]:
    """The training images with the most similar embeddings, for each of the float images N C H W in [0, 1]."""
    images, labels = training.to(torch.device("cpu")).evenly_spaced(SEARCHED)
    known = embeddings(model, whole(images, labels).to(backend.device))  # M D
    asked = (x * 255).round().to(torch.uint8)
    mine = embeddings(model, whole(asked, torch.zeros(len(x), dtype=torch.int64, device=x.device)).to(backend.device))
    best = (mine @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1)
    return [
        tuple(Neighbour(images[j], int(labels[j]), value) for j, value in zip(row, values, strict=True))
        for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def save_explanations(
    classifier: "NetworkClassifier", data: "Dataset", predictions: "Sequence[Prediction]", folder: Path
) -> list[Path]:
    """A PNG per prediction in `folder`, named after its image; gives their paths. Raises `UserError` where names are taken."""
    from thumbnet.plots.images import explanation_figure
    from thumbnet.plots.style import save

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is taken; choose another folder for the explanations")
    pixels = torch.from_numpy(classifier.prepare_images([row.source or Path(row.file) for row in predictions]))
    targets = torch.tensor([classifier.classes.index(row.label) for row in predictions])
    paths: list[Path] = []
    for start in range(0, len(predictions), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        options: dict[str, Any] = {"training": data.train, "temperature": classifier.temperature}
        found = explain(classifier.model, pixels[part], targets[part], classifier.backend, **options)
        for explanation, row in zip(found, predictions[part], strict=True):
            name = Path(row.file).name
            paths.append(free_name(folder, stem_of(name), paths))
            save(explanation_figure(explanation, classifier.classes, title=name), paths[-1])
    return paths


def stem_of(name: str) -> str:
    """What a picture is called after an image: without the ending of its file; `test.csv-0` after `test.csv:0`."""
    return Path(name).stem if is_image_name(name) else name.replace(":", "-")


def free_name(folder: Path, stem: str, taken: list[Path]) -> Path:
    """STEM.png in `folder`, with a number behind it where that is among `taken`."""
    path, count = folder / f"{stem}.png", 2
    while path in taken:
        path, count = folder / f"{stem}-{count}.png", count + 1
    return path
