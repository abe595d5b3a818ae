"""Name the class of pictures: python classify.py photo.png ...

Needs numpy, Pillow and onnxruntime, and model.onnx beside it; nothing of thumbnet.
"""

import json
import sys
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image, ImageOps

if __name__ == "__main__" and sys.argv[1:] in (["-h"], ["--help"]):
    print(__doc__)
    sys.exit()

MODEL = Path(__file__).with_name("model.onnx")
try:
    SESSION = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
except Exception as error:  # of a dozen types
    sys.exit(f"{MODEL} cannot be read: {error}")
FACTS = json.loads(SESSION.get_modelmeta().custom_metadata_map["thumbnet"])  # classes, image_size, channels, ...


def prepare(file):
    """uint8 H W C: upright, on white where it is transparent, its centre in the size of the training images."""
    with Image.open(file) as stored:
        image = ImageOps.exif_transpose(stored)
    if image.mode.startswith("I"):  # 16-bit grey
        image = Image.fromarray(
            ((numpy.asarray(image).clip(0, 65535).astype(numpy.uint32) + 128) // 257).astype(numpy.uint8)
        )
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(colours, mask=colours)
    height, width = FACTS["image_size"]
    image = image.convert("L" if FACTS["channels"] == 1 else "RGB")
    image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return numpy.asarray(image).reshape(height, width, FACTS["channels"])


def classify(files):
    """float32 N K: the probabilities of FACTS["classes"], in their order, for each file."""
    [probabilities] = SESSION.run(["probabilities"], {"images": numpy.stack([prepare(file) for file in files])})
    return probabilities


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack the letters of a name
    broken = 0
    for name in sys.argv[1:]:
        try:
            [row] = classify([name])
        except Exception as error:  # of a dozen types, by what is wrong with the file
            broken += 1
            print(f"{name} cannot be read: {error}", file=sys.stderr)
        else:
            print(f"{name}  {FACTS['classes'][row.argmax()]}  {row.max():.2%}")
    if broken:
        sys.exit(1)
