"""Image files to uint8 arrays: one decoder for training folders and for prediction, so that both see the same pixels.

Letters in shapes: C channels, H height, W width.
"""

import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from thumbnet.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow's names; every other decoder of Pillow stays out of reach
FORMATS_IN_WORDS = "PNG, JPEG, WebP, GIF or BMP"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp"})

MODES = {1: "L", 3: "RGB"}  # channels to Pillow's name; L is luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)
MAXIMUM_PIXELS = 89_478_485  # Pillow's own limit, a quarter of a GiB at 3 bytes a pixel: 1024**3 // 4 // 3

# EXIF 2.32, table 6: where row 0 and column 0 of the stored picture belong. 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,  # Pillow turns anticlockwise
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filters = ExitStack()


def decode_image(
    source: Path | bytes | Image.Image, *, channels: int, size: tuple[int, int], most_pixels: int = MAXIMUM_PIXELS
) -> NDArray[np.uint8]:
    """Give an image as uint8 C H W: upright, on white where it is transparent, its centre resized to `size`.

    `source` is a file, a file's bytes or a Pillow image; the format (PNG, JPEG, WebP, the first frame of a GIF, BMP) is
    told by content, not by name. `channels` is 1 (luma) or 3 (RGB), `size` is (height, width). 16-bit grey is scaled
    to 8 bits. An image that already has the size keeps its pixels bit for bit. Raises `UserError`, naming the file, for
    anything that is missing, not an image, damaged, or above `most_pixels` (89,478,485; refused before it is decoded).
    """
    if channels not in MODES or min(size) < 1:
        raise UserError(f"cannot make images of {channels} channels and {size} pixels; give 1 or 3, and positive sizes")
    try:
        with quiet_pillow(), opened(source) as image:
            refuse_bomb(image, most_pixels)
            image.load()
            transpose = UPRIGHT.get(orientation(image))
            flat = flattened(image, MODES[channels])
    except MemoryError:
        raise  # the machine's trouble, not the file's: it must not count as a broken image
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        reason = reason_of(error, most_pixels)
        raise UserError(f"cannot read image {name_of(source)}: {reason}; replace or remove it") from error
    fitted = resized(flat if transpose is None else flat.transpose(transpose), size)
    pixels = np.asarray(fitted).reshape(*size, channels)  # H W or H W C -> H W C
    return pixels.transpose(2, 0, 1).copy()  # H W C -> C H W; Pillow's own memory is read-only


def is_image_name(name: str) -> bool:
    """Whether the name ends like an image's and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_files(path: Path) -> tuple[list[Path], list[Path]]:
    """A file itself, or a folder's images at any depth in natural order, and what is no image there.

    Raises `UserError` if there is no image.
    """
    if os.path.isfile(path):
        return [path], []
    if not os.path.exists(path):
        raise UserError(f"no such file or folder: {path}; check the path")
    found: dict[bool, list[Path]] = {True: [], False: []}
    for entry, is_image in walk(path):
        found[is_image].append(Path(entry.path))
    if not found[True]:
        raise UserError(f"no image in folder {path}; give a folder that holds {FORMATS_IN_WORDS} files")
    return found[True], found[False]


def natural_key(name: str) -> tuple[list[Any], str]:
    """Sort key that puts 2 before 10, and letters without regard to case; the name itself breaks ties."""
    parts = re.split(r"(\d+)", name.casefold())  # text at even places, digits at odd ones
    return [as_number(part) if place % 2 else part for place, part in enumerate(parts)], name


def as_number(digits: str) -> tuple[int, str]:
    """What sorts as the number does, of which Python reads no more than some thousand digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies directly in a folder, hidden or not, in natural order."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: natural_key(entry.name))
    except OSError as error:
        raise UserError(f"cannot open folder {folder}: {reason_of(error)}; check path and permissions") from error


def walk(
    folder: str | Path, above: frozenset[tuple[int, int]] | None = None
) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Yield each file at any depth, in natural order, and whether to read it as an image.

    Hidden entries are yielded as no image, hidden folders not entered. Links to folders are followed, except a link to
    a folder that it lies in, which would be a loop; `above` identifies the folders on the way down.
    """
    if above is None:
        above = frozenset(identity(parent) for parent in Path(folder).resolve().parents)
    above |= {identity(folder)}
    for entry in entries(folder):
        if not is_folder(entry):
            yield entry, is_image_name(entry.name) and not is_special(entry)
        elif identity(entry.path) not in above:
            yield from walk(entry.path, above)


def identity(folder: str | Path) -> tuple[int, int]:
    """What two paths to the same folder share."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one, that is not hidden."""
    try:
        return not entry.name.startswith(".") and entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_special(entry: os.DirEntry[str]) -> bool:
    """Whether reading this could hang, as pipes and devices do. A dangling link is not: decoding it names it."""
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's own warnings (odd EXIF, large images) from the user while at least one thread is inside.

    Python's warning filters belong to the process: two threads that each save and restore them can leave them changed
    for good. So the first one in sets them, and the last one out restores them.
    """
    global _quiet_users
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet_filters.close()


@contextmanager
def opened(source: Path | bytes | Image.Image) -> Iterator[Image.Image]:
    """A Pillow image of which only the header has been read; whatever was opened here is closed."""
    if isinstance(source, Image.Image):
        yield source
        return
    with (
        BytesIO(source) if isinstance(source, bytes) else opened_file(source) as stream,
        Image.open(stream, formats=FORMATS) as image,
    ):
        yield image


def opened_file(path: Path) -> BinaryIO:
    """A regular file; a pipe would wait for somebody to write, and a device may never end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no regular file")
    return file


def refuse_bomb(image: Image.Image, most_pixels: int) -> None:
    """Stop a small file that would unpack to gigabytes, by the size in its header."""
    width, height = image.size
    if width * height > most_pixels:
        raise ValueError(f"its {width} x {height} pixels are above the limit of {most_pixels:,}")


def orientation(image: Image.Image) -> Any:
    """The EXIF orientation, 1 to 8, or None. Damaged EXIF leaves the picture as it is stored."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def flattened(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode L or RGB, transparent parts on white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        return eight_bits(image).convert(mode)
    if not image.has_transparency_data:
        return image.convert(mode)
    colours = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(colours, mask=colours)
    return canvas.convert(mode)


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (I;16, I;16B, or I, which Pillow uses for it too) scaled to L; Pillow's own conversion would clip."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257, rounded to nearest
    if "transparency" in image.info:  # in PNG one 16-bit value may stand for "nothing here"
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest centred part of the target's shape, resampled to `size` (height, width).

    That is a resize of the shorter side followed by a centre crop, in one step, so that a 50000 x 1 image needs no more
    memory than others. BILINEAR is antialiased when it shrinks, and is torchvision's default.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if image.width * height <= image.height * width:  # the width is used whole
        part = image.width * height / width
        box = (0.0, (image.height - part) / 2, float(image.width), (image.height + part) / 2)
    else:
        part = image.height * width / height
        box = ((image.width - part) / 2, 0.0, (image.width + part) / 2, float(image.height))
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def name_of(source: Path | bytes | Image.Image) -> str:
    """What to call the source in an error."""
    if isinstance(source, Image.Image):
        return f"of mode {source.mode} and size {source.width} x {source.height}"
    return f"of {len(source)} bytes" if isinstance(source, bytes) else str(source)


def reason_of(error: Exception, most_pixels: int = MAXIMUM_PIXELS) -> str:
    """One line that says why, without Pillow's internals."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is no {FORMATS_IN_WORDS} image, or a damaged one"
    if isinstance(error, Image.DecompressionBombError):
        return f"its pixels are above the limit of {most_pixels:,}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
