"""Images to be classified, whatever they come in: files, folders, tables that name files, or arrays."""
# Shapes: N images, C channels, H and W height and width.

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thumbnet.data.arrays import channels_first, holds_arrays, is_npz, read_parts
from thumbnet.data.columns import is_table
from thumbnet.data.images import image_files
from thumbnet.data.labelled import best_split
from thumbnet.data.pixel_table import is_pixel_table, read_pixels
from thumbnet.data.table import read_images
from thumbnet.errors import UserError


@dataclass(frozen=True)
class UnlabelledImages:
    """Images and what each is called: a file by its path or as a table calls it, one of an array by the file and a number."""

    names: list[str]
    images: Sequence[Path | Image.Image]
    ignored: Sequence[Path] = ()  # files in a folder that are no images by their names
    note: str = ""  # which part of arrays is taken
    numbered: bool = False  # called by nothing but numbers, in their order


def unlabelled_images(path: Path) -> UnlabelledImages:
    """The images at `path`: an image file, a folder of some, a .csv file that names them or has their pixels, or arrays.

    Of arrays the test images are taken if there are some, else the validation images. Raises `UserError` where there are none.
    """
    if is_table(path) and os.path.isfile(path):
        return of_pixel_table(path) if is_pixel_table(path) else of_table(path)
    if (is_npz(path) and os.path.isfile(path)) or (os.path.isdir(path) and holds_arrays(path)):
        return of_arrays(path)
    files, ignored = image_files(path)
    return of_files(files, ignored)


def together(parts: Sequence[UnlabelledImages]) -> UnlabelledImages:
    """The images of all parts, in their order."""
    return UnlabelledImages(
        [name for part in parts for name in part.names],
        [image for part in parts for image in part.images],
        [file for part in parts for file in part.ignored],
        "; ".join(part.note for part in parts if part.note),
        all(part.numbered for part in parts),
    )


def of_files(files: Sequence[Path], ignored: Sequence[Path] = ()) -> UnlabelledImages:
    return UnlabelledImages([str(file) for file in files], files, ignored)


def of_table(path: Path) -> UnlabelledImages:
    names, files, note = read_images(path)
    return UnlabelledImages(names, files, note=note)


def of_arrays(path: Path) -> UnlabelledImages:
    """The images of an .npz file or a folder of IDX files, of one split."""
    parts, _ = read_parts(path)
    there = {split for split, kind in parts if kind == "images"}
    if not there:
        raise UserError(f"{path} has no images, only labels; give a file that has some")
    split = best_split(there)
    images = channels_first(path, split, parts[split, "images"]).transpose(0, 2, 3, 1)  # N C H W -> N H W C
    found = of_pixels(path, images.squeeze(3) if images.shape[3] == 1 else images)
    note = f"of {path} the {split} images are taken" if len(there) > 1 else ""
    return replace(found, note=note)


def of_pixel_table(path: Path) -> UnlabelledImages:
    """The images of a table of pixels, called by its column for them where it has one."""
    names, pixels = read_pixels(path)
    found = of_pixels(path, pixels)
    return replace(found, names=names, numbered=False) if names else found


def of_pixels(path: Path, pixels: NDArray[np.uint8]) -> UnlabelledImages:
    """Images uint8 N H W or N H W 3, called by their numbers from 0."""
    names = [f"{path}:{row}" for row in range(len(pixels))]
    return UnlabelledImages(names, [Image.fromarray(image) for image in pixels], numbered=True)
