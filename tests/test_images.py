"""The image decoder: every mode and format against values worked out by hand or in numpy, and every refusal."""

import io
import struct
import threading
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from thumbnet.data.images import MAXIMUM_PIXELS, decode_image, quiet_pillow
from thumbnet.errors import UserError


def random_pixels(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def encoded(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def as_rows(image):
    """C H W as H W C, the order in which pictures are written down."""
    return image.transpose(1, 2, 0)


def png(width, height, depth, colour_type, rows, *chunks):
    """A PNG made by hand, for what Pillow cannot write. `rows` are bytes, `chunks` (type, bytes) before the pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def on_white(colours, alpha):
    """colours H W C and alpha H W, both 0 to 255, composed on white in floating point."""
    share = alpha[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def luma(colours):
    return colours @ np.array([0.299, 0.587, 0.114])


def decode(source, size, channels=3):
    return decode_image(source, channels=channels, size=size)


# --- formats and modes ---------------------------------------------------------------------------------------------


def test_a_png_of_the_target_size_keeps_every_bit():
    pixels = random_pixels(32, 48, 3)
    decoded = decode(encoded(Image.fromarray(pixels), "PNG"), (32, 48))
    assert decoded.shape == (3, 32, 48)
    assert decoded.dtype == np.uint8
    assert np.array_equal(as_rows(decoded), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_array_is_contiguous_and_may_be_written_to(channels):
    decoded = decode(Image.fromarray(random_pixels(4, 4)), (4, 4), channels)
    decoded[:] = 0
    assert decoded.flags.c_contiguous
    assert decoded.flags.owndata


@pytest.mark.parametrize(("image_format", "options"), [("BMP", {}), ("WEBP", {"lossless": True})])
def test_other_lossless_formats_keep_every_bit(image_format, options):
    pixels = random_pixels(16, 20, 3)
    assert np.array_equal(as_rows(decode(encoded(Image.fromarray(pixels), image_format, **options), (16, 20))), pixels)


def test_a_jpeg_comes_out_close_to_what_went_in():
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    decoded = decode(encoded(Image.fromarray(smooth), "JPEG", quality=95, subsampling=0), (32, 32))
    assert np.abs(as_rows(decoded).astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(image_format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ["red", "lime", "blue"]]
    options = {"lossless": True} if image_format == "WEBP" else {}
    animation = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], duration=100, **options)
    assert (as_rows(decode(animation, (8, 8))) == [255, 0, 0]).all()


def test_the_content_decides_the_format_not_the_name(tmp_path):
    pixels = random_pixels(8, 8, 3)
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    assert np.array_equal(as_rows(decode(path, (8, 8))), pixels)


def test_path_bytes_and_pillow_image_give_the_same_pixels(tmp_path):
    content = encoded(Image.fromarray(random_pixels(40, 50, 3)), "JPEG")
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    expected = decode(path, (32, 32))
    assert np.array_equal(decode(content, (32, 32)), expected)
    with Image.open(path) as image:
        assert np.array_equal(decode(image, (32, 32)), expected)
        assert image.size == (50, 40)
        image.getpixel((0, 0))  # the caller's image stays open


def test_grey_is_repeated_over_the_colour_channels():
    pixels = random_pixels(8, 8)
    decoded = decode(encoded(Image.fromarray(pixels), "PNG"), (8, 8))
    assert all(np.array_equal(channel, pixels) for channel in decoded)


def test_one_channel_of_a_grey_image_is_untouched():
    pixels = random_pixels(8, 6)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels), "PNG"), (8, 6), 1), pixels[None])


def test_one_channel_of_a_colour_image_is_its_luma():
    pixels = random_pixels(8, 8, 3)
    decoded = decode(encoded(Image.fromarray(pixels), "PNG"), (8, 8), 1)
    assert decoded.shape == (1, 8, 8)
    assert np.abs(decoded[0] - luma(pixels)).max() <= 1


def test_one_bit_images_become_black_and_white():
    bits = random_pixels(8, 9) > 127
    decoded = decode(encoded(Image.fromarray(bits), "PNG"), (8, 9))
    assert np.array_equal(decoded[2], bits * 255)


def test_a_palette_is_looked_up():
    palette = random_pixels(256, 3, seed=1)
    indices = random_pixels(8, 8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(as_rows(decode(encoded(image, "PNG"), (8, 8))), palette[indices])
    assert np.array_equal(as_rows(decode(encoded(image, "GIF"), (8, 8))), palette[indices])


def test_a_palette_with_one_transparent_colour_is_composed_on_white():
    palette = random_pixels(256, 3, seed=1)
    indices = random_pixels(8, 8) % 4
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    expected = np.where((indices == 2)[..., None], 255, palette[indices])
    assert np.array_equal(as_rows(decode(encoded(image, "PNG", transparency=2), (8, 8))), expected)
    assert np.array_equal(as_rows(decode(encoded(image, "GIF", transparency=2), (8, 8))), expected)


def test_a_palette_with_an_alpha_for_each_colour_is_composed_on_white():
    palette, alphas = random_pixels(256, 3, seed=1), random_pixels(1, 256, seed=2)[0]
    indices = random_pixels(8, 8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    decoded = decode(encoded(image, "PNG", transparency=alphas.tobytes()), (8, 8))
    assert np.array_equal(as_rows(decoded), on_white(palette[indices], alphas[indices]))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_alpha_is_composed_on_white(image_format):
    pixels = random_pixels(16, 16, 4)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    decoded = as_rows(decode(encoded(Image.fromarray(pixels), image_format, **options), (16, 16)))
    assert np.array_equal(decoded, on_white(pixels[..., :3], pixels[..., 3]))
    assert (decoded[0, 0] == 255).all()
    assert np.array_equal(decoded[0, 1], pixels[0, 1, :3])


def test_grey_with_alpha_is_composed_on_white():
    pixels = random_pixels(16, 16, 2)
    content = encoded(Image.fromarray(pixels, "LA"), "PNG")
    expected = on_white(pixels[..., :1], pixels[..., 1])[..., 0]
    assert np.array_equal(decode(content, (16, 16), 1)[0], expected)
    assert np.array_equal(decode(content, (16, 16), 3)[1], expected)


def test_a_colour_or_grey_declared_transparent_becomes_white():
    pixels = random_pixels(4, 4, 3)
    content = encoded(Image.fromarray(pixels), "PNG", transparency=tuple(int(value) for value in pixels[1, 2]))
    expected = pixels.copy()
    expected[1, 2] = 255
    assert np.array_equal(as_rows(decode(content, (4, 4))), expected)

    grey = png(3, 1, 8, 0, [bytes([7, 8, 9])], (b"tRNS", struct.pack(">H", 8)))
    assert decode(grey, (1, 3), 1).tolist() == [[[7, 255, 9]]]


def test_transparency_is_composed_before_the_size_changes():
    """Else the hidden colour of transparent pixels would bleed into the edges."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = [0, 0, 255, 255]
    pixels[:, 4:] = [255, 0, 0, 0]  # hidden red
    decoded = decode(encoded(Image.fromarray(pixels), "PNG"), (1, 1))
    red, green, blue = decode(Image.fromarray(on_white(pixels[..., :3], pixels[..., 3])), (1, 1))[:, 0, 0]
    assert decoded[:, 0, 0].tolist() == [red, green, blue]
    assert red == green == 128
    assert blue == 255


SIXTEEN_BITS = np.array([[0, 128, 129, 255, 257, 32768, 65406, 65407, 65535]], np.uint16)
EIGHT_BITS = [[0, 0, 1, 1, 1, 128, 254, 255, 255]]  # value / 257, rounded to nearest


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_grey_is_scaled_not_clipped(mode):
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (9, 1), SIXTEEN_BITS.astype(kind).tobytes())
    assert decode(image, (1, 9), 1)[0].tolist() == EIGHT_BITS
    assert decode(image, (1, 9), 3)[2].tolist() == EIGHT_BITS


def test_a_sixteen_bit_png_is_scaled_and_its_transparent_value_becomes_white():
    row = SIXTEEN_BITS.astype(">u2").tobytes()
    assert decode(png(9, 1, 16, 0, [row]), (1, 9), 1)[0].tolist() == EIGHT_BITS
    with_hole = png(9, 1, 16, 0, [row], (b"tRNS", struct.pack(">H", 32768)))
    assert decode(with_hole, (1, 9), 1)[0].tolist() == [[0, 0, 1, 1, 1, 255, 254, 255, 255]]


def test_sixteen_bit_colour_is_scaled():
    content = png(2, 1, 16, 2, [struct.pack(">6H", 65535, 0, 32768, 0, 65535, 32768)])
    assert as_rows(decode(content, (1, 2))).tolist() == [[[255, 0, 128], [0, 255, 128]]]


def test_the_ink_of_a_cmyk_jpeg_darkens_white_paper():
    """Pillow writes CMYK JPEGs as Adobe does, inverted; the picture must not come out as its negative."""
    inks = {"white": (0, 0, 0, 0), "cyan": (255, 0, 0, 0), "yellow": (0, 0, 255, 0), "black": (0, 0, 0, 255)}
    shown = {"white": (255, 255, 255), "cyan": (0, 255, 255), "yellow": (255, 255, 0), "black": (0, 0, 0)}
    for name, ink in inks.items():
        content = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert b"Adobe" in content
        assert np.abs(as_rows(decode(content, (16, 16))).astype(int) - shown[name]).max() <= 3, name


# --- orientation ---------------------------------------------------------------------------------------------------

# How a camera stores an upright picture for each orientation, from the EXIF standard's words: "the 0th row is the
# visual ..., the 0th column the visual ...". For instance 6: row 0 is the right-hand side, column 0 the top.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_a_turned_or_mirrored_photo_comes_out_upright(orientation, image_format):
    upright = random_pixels(6, 9, 3)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encoded(stored, image_format, exif=exif(orientation), **options)
    assert np.array_equal(as_rows(decode(content, (6, 9))), upright)


@pytest.mark.parametrize("orientation", STORED)
def test_a_turned_jpeg_has_its_red_corner_at_the_top_left(orientation):
    upright = np.full((16, 32, 3), 255, np.uint8)
    upright[:8, :8] = [255, 0, 0]
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    decoded = as_rows(decode(encoded(stored, "JPEG", quality=95, exif=exif(orientation)), (16, 32))).astype(int)
    assert np.abs(decoded[2:6, 2:6] - [255, 0, 0]).max() < 16
    assert decoded[10:, :].min() > 200
    assert decoded[:, 10:].min() > 200


@pytest.mark.parametrize("value", [0, 9, 600])
def test_an_orientation_that_does_not_exist_leaves_the_picture_as_stored(value):
    pixels = random_pixels(6, 6, 3)
    assert np.array_equal(as_rows(decode(encoded(Image.fromarray(pixels), "PNG", exif=exif(value)), (6, 6))), pixels)


def test_damaged_exif_neither_warns_nor_stops(recwarn):
    pixels = random_pixels(6, 6, 3)
    damaged = exif(6).tobytes()[:-6]
    with pytest.warns(UserWarning, match="Corrupt EXIF"):  # what Pillow does alone
        Image.open(io.BytesIO(encoded(Image.fromarray(pixels), "PNG", exif=damaged))).getexif()
    recwarn.clear()
    decoded = decode(encoded(Image.fromarray(pixels), "PNG", exif=damaged), (6, 6))
    assert np.array_equal(as_rows(decoded), pixels)
    assert not recwarn.list


def test_exif_that_is_no_exif_at_all_leaves_the_picture_as_stored():
    pixels = random_pixels(6, 6, 3)
    content = encoded(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0garbage, not TIFF")
    with pytest.raises(SyntaxError):  # what Pillow does alone
        Image.open(io.BytesIO(content)).getexif()
    assert np.array_equal(as_rows(decode(content, (6, 6))), pixels)


# --- size ----------------------------------------------------------------------------------------------------------


def test_a_wide_image_keeps_its_centre():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (decode(Image.fromarray(pixels), (10, 10)) == 255).all()
    assert (decode(Image.fromarray(255 - pixels), (5, 5))[:, :, 1:-1] == 0).all()


def test_a_tall_image_keeps_its_centre():
    pixels = np.zeros((30, 10, 3), np.uint8)
    pixels[10:20] = 255
    assert (decode(Image.fromarray(pixels), (10, 10)) == 255).all()


def test_a_target_that_is_not_square_takes_height_first():
    pixels = np.zeros((12, 12, 3), np.uint8)
    pixels[4:8] = 255
    decoded = decode(Image.fromarray(pixels), (4, 12))
    assert decoded.shape == (3, 4, 12)
    assert (decoded == 255).all()


def test_nothing_is_stretched():
    """A disc in a wide picture stays round."""
    rows, columns = np.mgrid[:120, :200]
    disc = np.where((rows - 59.5) ** 2 + (columns - 99.5) ** 2 < 40**2, 255, 0).astype(np.uint8)
    inside = decode(Image.fromarray(disc), (60, 60), 1)[0] > 127
    assert inside.any(axis=0).sum() == inside.any(axis=1).sum() == 40


def test_shrinking_averages_rather_than_picks_pixels():
    """A fine chequerboard becomes even grey; without antialiasing it would stay black and white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(decode(Image.fromarray(board), (8, 8), 1).astype(int) - 127.5).max() <= 2


def test_the_resize_is_the_triangle_filter_worked_out_in_numpy():
    pixels = random_pixels(12, 12)
    centres = (np.arange(4) + 0.5) * 3 - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(12) - centres[:, None]) / 3)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = weights @ pixels @ weights.T
    assert np.abs(decode(Image.fromarray(pixels), (4, 4), 1)[0] - expected).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (33, 31), (100, 3), (3, 100), (999, 1000)])
def test_every_shape_becomes_the_target_size(height, width):
    assert decode(Image.new("RGB", (width, height), "teal"), (32, 32)).shape == (3, 32, 32)
    assert (as_rows(decode(Image.new("RGB", (width, height), "teal"), (17, 40))) == [0, 128, 128]).all()


def test_a_thread_thin_image_needs_no_gigabytes():
    started = time.perf_counter()
    decode(Image.new("L", (2_000_000, 1), 7), (32, 32))
    assert time.perf_counter() - started < 1


# --- refusals ------------------------------------------------------------------------------------------------------


def bomb(image_format, width, height):
    """A small valid head that promises width x height pixels."""
    if image_format == "PNG":
        return png(width, height, 8, 2, [b""])
    if image_format == "BMP":
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header
    # A GIF of 1 x 1 whose frame is that large.
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08" + b"\x01\x00\x00" + b";"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF"])
@pytest.mark.parametrize("side", [9_460, 60_000])  # just above the limit, and above twice the limit
def test_a_decompression_bomb_is_refused_by_its_header(image_format, side, tmp_path):
    path = tmp_path / f"bomb.{image_format.lower()}"
    path.write_bytes(bomb(image_format, side, side))
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"bomb\.\w+: its .*pixels are above the limit of 89,478,485"):
        decode(path, (32, 32))
    assert time.perf_counter() - started < 0.5


def test_the_limit_is_pillows_own_and_does_not_fall_when_a_program_lifts_pillows(monkeypatch):
    assert MAXIMUM_PIXELS == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(UserError, match="above the limit"):
        decode(bomb("PNG", 9_460, 9_460), (32, 32))


def test_an_image_at_the_limit_is_not_called_a_bomb():
    width = MAXIMUM_PIXELS // 5
    with pytest.raises(UserError, match="truncated"):
        decode(bomb("PNG", width, 5), (8, 8))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.95])
def test_a_truncated_file_is_refused_by_name(image_format, kept, tmp_path):
    content = encoded(Image.fromarray(random_pixels(64, 64, 3)), image_format)
    path = tmp_path / "half.png"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError) as caught:
        decode(path, (32, 32))
    message = str(caught.value)
    assert message.startswith(f"cannot read image {path}: ")
    assert message.endswith("; replace or remove it")
    assert "\n" not in message


def test_pillow_is_not_told_to_accept_truncated_images():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("image_format", ["TIFF", "PPM", "ICO", "TGA"])
def test_a_format_outside_the_five_is_refused_whatever_its_name(image_format, tmp_path):
    path = tmp_path / "disguised.png"
    path.write_bytes(encoded(Image.new("RGB", (32, 32)), image_format))
    with pytest.raises(
        UserError, match=r"disguised\.png: it is no PNG, JPEG, WebP, GIF or BMP image, or a damaged one"
    ):
        decode(path, (32, 32))


def test_text_a_folder_and_nothing_are_refused_by_name(tmp_path):
    (tmp_path / "note.png").write_text("not an image")
    for path, reason in [
        (tmp_path / "note.png", "it is no PNG"),
        (tmp_path, "Is a directory"),
        (tmp_path / "absent.png", "No such file"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            decode(path, (8, 8))
        assert str(path) in str(caught.value)


def test_unreadable_bytes_and_pillow_images_are_described():
    with pytest.raises(UserError, match="of 5 bytes: it is no PNG"):
        decode(b"hello", (8, 8))
    with pytest.raises(UserError, match="of mode F and size 3 x 2: floating-point pixels have no known range"):
        decode(Image.new("F", (3, 2)), (8, 8))


def test_running_out_of_memory_is_not_blamed_on_the_file(monkeypatch):
    def exhausted(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", exhausted)
    with pytest.raises(MemoryError):
        decode(Image.new("RGB", (8, 8)), (8, 8))


@pytest.mark.parametrize(("channels", "size"), [(2, (8, 8)), (3, (0, 8)), (1, (8, -1))])
def test_impossible_targets_are_refused(channels, size):
    with pytest.raises(UserError, match=f"{channels} channels and .*{size[1]}"):
        decode(Image.new("RGB", (8, 8)), size, channels)


def test_warning_filters_are_as_before_after_many_threads_decoded():
    before = list(warnings.filters)
    content = encoded(Image.new("P", (4, 4)), "PNG", transparency=b"\x10\x20")
    threads = [threading.Thread(target=lambda: [decode(content, (4, 4)) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_pillow_stays_quiet_until_the_last_thread_is_out():
    def ignored():
        return any(action == "ignore" and module and module.match("PIL.Image") for action, _, _, module, _ in filters())

    def filters():
        return list(warnings.filters)

    before = filters()
    first, second = quiet_pillow(), quiet_pillow()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ignored()
    second.__exit__(None, None, None)
    assert filters() == before
    assert not ignored()


def test_only_pillows_warnings_are_kept_quiet():
    with pytest.warns(UserWarning, match="ours"), quiet_pillow():
        warnings.warn("ours", stacklevel=1)
