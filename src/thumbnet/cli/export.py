"""Write a finished run's network to a file that other programs use, or to a folder to hand on."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thumbnet.cli.options import Json, check_writable, described, print_json, show
from thumbnet.words import counted

if TYPE_CHECKING:
    from thumbnet.shipping.exporting import Receipt


@described
def export(
    run: Path,
    file: Path,
    /,
    *,
    views: Literal[1, 2, 6] = 1,
    int8: bool = False,
    data_dir: Path | None = None,
    json: Json = False,
) -> None:
    """Write the network with its preprocessing to one file, and check that it says the same.

    Parameters
    ----------
    run
        folder written by `thumbnet train`
    file
        FILE.onnx, FILE.pt2 for torch, or a folder: an ONNX file with a card that describes it and a program that uses it
    views
        averaged inside the file: the image (1), its mirror image (2), and both shifted by one pixel (6)
    int8
        ONNX: whole numbers of eight bits inside, for a quarter of the size and more speed; refused where accuracy suffers
    data_dir
        where the images to check with are now, if they have moved
    """
    check_writable(file, file.with_name(f"{file.name}.receipt.json")) if file.suffix else check_writable(
        file / "README.md"
    )
    if sys.stderr.isatty():
        show("writing and checking; a few seconds", file=sys.stderr)

    from dataclasses import asdict

    from thumbnet.shipping.bundle.folder import export
    from thumbnet.shipping.exporting import receipt_path

    receipt = export(run, file, views=views, int8=int8, data_dir=data_dir)
    folder, file = (file, Path(receipt.file)) if Path(receipt.file) != file else (None, file)
    if json:
        print_json(asdict(receipt))
        return
    height, width = receipt.image_size
    inside = ("" if views == 1 else f", {views} views averaged inside") + (", computed in int8" if int8 else "")
    show(
        f"file     {file}, {receipt.bytes / 1e6:.1f} MB: uint8 N {height} {width} {receipt.channels} in, "
        f"probabilities N {receipt.classes} out{inside}"
    )
    show(f"checked  with {checked(receipt)}")
    speed = receipt.speed
    show(
        f"speed    {speed.milliseconds:.3g} ms for one image, {speed.images_per_second:,.0f} images/s in batches, on this "
        f"processor; {receipt.parameters:,} parameters"
    )
    show(f"receipt  {receipt_path(file)}")
    if receipt.split == "train":
        show("note     the run held no validation images out, so its probabilities are not calibrated")
    if folder:
        show(f"card     {folder / 'README.md'}")
        show(f"program  {folder / 'classify.py'}")
    place = shlex.quote(str(folder or file))
    if file.suffix.lower() == ".onnx":
        show(f"use      thumbnet predict {place} photo.png   or   thumbnet serve {place}")
    else:
        show(f"use      torch.export.load({str(file)!r}).module()")


def checked(receipt: "Receipt") -> str:
    """What the file was checked with and how near it came, for people."""
    kind = "training" if receipt.split == "train" else receipt.split
    same = "all" if receipt.same_class == receipt.images else f"{receipt.same_class:,}"
    told = f"{counted(receipt.images, f'{kind} image')}: the same class for {same}"
    if receipt.tolerance is not None:
        return (
            f"{told}, probabilities differ by {receipt.largest_difference:.1e} at most ({receipt.tolerance:g} allowed)"
        )
    right = f"{receipt.accuracy:.2%} right, {receipt.accuracy_of_run:.2%} by the run in fp32"
    return f"{told}; {right} (McNemar's p = {receipt.p:.2g})"
