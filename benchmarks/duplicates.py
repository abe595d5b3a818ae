"""What `thumbnet doctor` finds of planted near duplicates, and in CIFAR's own: writes results/duplicates.json.

    python benchmarks/duplicates.py [--data-dir DIR]

Changed copies of 200 of 1,500 training images are put among the test images, one change at a time; then CIFAR-10 and CIFAR-100
are examined as they are published. Some minutes.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thumbnet.backend import environment, prepare
from thumbnet.data.datasets import load_dataset
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.doctor import examine_dataset
from thumbnet.doctor.duplicates import near_duplicates
from thumbnet.files import write_json
from thumbnet.machine import Machine

RECORD = Path(__file__).parents[1] / "results" / "duplicates.json"
IMAGES, PLANTED = 1_500, 200
NOISE = 10  # standard deviation, of 255

Pixels = NDArray[np.uint8]


def picture(image: Pixels) -> Image.Image:
    """uint8 C H W as Pillow has it."""
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def pixels(image: Image.Image) -> Pixels:
    """uint8 C H W again."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def encoded(image: Pixels) -> Pixels:
    buffer = io.BytesIO()
    picture(image).save(buffer, "JPEG", quality=60)
    return pixels(Image.open(buffer))


def shifted(image: Pixels, by: int) -> Pixels:
    return np.pad(image, ((0, 0), (by, 0), (by, 0)), mode="edge")[:, : image.shape[1], : image.shape[2]]


def halved(image: Pixels) -> Pixels:
    side = picture(image).size
    small = picture(image).resize((side[0] // 2, side[1] // 2), Image.Resampling.BILINEAR)
    return pixels(small.resize(side, Image.Resampling.BILINEAR))


def enlarged(image: Pixels) -> Pixels:
    width, height = picture(image).size
    edge = width // 20
    box = (edge, edge, width - edge, height - edge)
    return pixels(picture(image).resize((width, height), Image.Resampling.BILINEAR, box=box))


def noisy(image: Pixels) -> Pixels:
    random = np.random.default_rng(int(image.sum()))
    return np.clip(image + random.normal(0, NOISE, image.shape), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "mirrored": lambda image: image[:, :, ::-1].copy(),
    "darker by 30 %": lambda image: (image * 0.7).astype(np.uint8),
    "JPEG, quality 60": encoded,
    f"noise, standard deviation {NOISE} of 255": noisy,
    "shifted by 1 pixel down and right": lambda image: shifted(image, 1),
    "shifted by 2 pixels": lambda image: shifted(image, 2),
    "halved and enlarged again (bilinear)": halved,
    "rotated by 5 degrees": lambda image: pixels(picture(image).rotate(5, Image.Resampling.BILINEAR)),
    "cut by a tenth and enlarged": enlarged,
    "eight noisy copies of each of the first 25": lambda image: noisy(image),
}


def found_of(images: Pixels, copies: Pixels, origins: NDArray[np.int64]) -> int:
    """How many of the copies are named beside the image they were made from."""
    labels = {"train": np.zeros(len(images), np.int64), "test": np.zeros(len(copies), np.int64)}
    pairs = near_duplicates({"train": images, "test": copies}, labels)
    return len({pair.second.row for pair in pairs if pair.across and pair.first.row == origins[pair.second.row]})


def planted(images: Pixels) -> dict[str, Any]:
    """Copies found of `PLANTED`, by change; pairs named among the images themselves."""
    found: dict[str, int] = {}
    for name, change in CHANGES.items():
        origins = np.repeat(np.arange(25), 8) if name.startswith("eight") else np.arange(PLANTED)
        copies = [change(images[origin]) for origin in origins]
        if name.startswith("eight"):
            random = np.random.default_rng(0)
            copies = [
                np.clip(copy + random.normal(0, NOISE / 2, copy.shape), 0, 255).astype(np.uint8) for copy in copies
            ]
        found[name] = found_of(images, np.stack(copies), origins)
        print(f"  {name}: {found[name]} of {PLANTED}", flush=True)
    alone = near_duplicates({"train": images}, {"train": np.zeros(len(images), np.int64)})
    return {"found": found, "of": PLANTED, "images": len(images), "pairs_in_the_unchanged": len(alone)}


def published(name: str, data_dir: Path | None) -> dict[str, Any]:
    """What is found in a set as it is published."""
    found = examine_dataset(load_dataset(name, validation=0, data_dir=data_dir))
    within = {
        split: sum(pair.first.split == pair.second.split == split for pair in found.near) for split in found.images
    }
    return {
        "images": found.images,
        "test_images_equal_to_training_images": found.leaked_exact,
        "test_images_equal_or_alike": found.leaked,
        "part_of_the_test_images": found.leaked / found.images["test"],
        "groups_of_equal_images": len(found.exact),
        "pairs_alike_within": within,
        "pairs_alike_with_different_labels": sum(not pair.same_label for pair in found.near),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    folder = parser.parse_args().data_dir
    cifar = load_dataset("cifar10", validation=0, data_dir=folder).development.images[:IMAGES].numpy()
    sets = {"fashion-mini": read_fashion_mini().arrays["train_images"][:IMAGES], "cifar10": cifar}
    found: dict[str, Any] = {"kind": "duplicates", "planted": {}, "published": {}}
    for name, images in sets.items():
        print(name)
        found["planted"][name] = planted(images)
    for name in ("cifar10", "cifar100"):
        found["published"][name] = published(name, folder)
        print(name, found["published"][name], flush=True)
    about = environment(prepare(Machine(device="cpu")))
    versions = {key: about[key] for key in ("thumbnet", "commit", "torch")}
    found |= {"command": ["python", "benchmarks/duplicates.py"], "processor": about["processor"], "versions": versions}
    write_json(RECORD, found)


if __name__ == "__main__":
    main()
