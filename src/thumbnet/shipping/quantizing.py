"""An exported ONNX file with whole numbers of eight bits inside in place of floats: a quarter of the size, and faster.

Static quantisation by onnxruntime (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html): of
convolutions and matrix products; the weights are int8, each output channel in a scale of its own, what they multiply is
uint8, and what lies between stays fp32, as does the first convolution.
"""
# Shapes: N images, C channels, H and W height and width.

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.shipping.exported import IMAGES, as_stored

SAMPLED = 500  # training images from which the range of each layer's numbers is read
AT_ONCE = 50
OPERATIONS = ["Conv", "Gemm", "MatMul"]  # nearly all of the time and all of the weights


def quantize(path: Path, images: NDArray[np.uint8]) -> None:
    """Rewrite an exported file in int8, the ranges taken from `images` N C H W; its metadata are lost."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(path)
    with quiet():
        quantize_static(
            model,
            path,
            reader_of(images),
            nodes_to_exclude=of_pixels(model),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # weights of 7 bits: with 8, sums overflow on processors without VNNI, which then answer otherwise
        )


def of_pixels(model: Any) -> list[str]:
    """Names of the nodes that convolve the pixels, of each view and member: fp32 costs little there, and fewer answers change."""
    channels = model.graph.input[0].type.tensor_type.shape.dim[3].dim_value  # N H W C
    kernels = {
        tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] == channels
    }
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in kernels]


def reader_of(images: NDArray[np.uint8]) -> Any:
    """The images as onnxruntime asks for them, some at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter(np.split(images, range(AT_ONCE, len(images), AT_ONCE)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            part = next(self.parts, None)
            return None if part is None else {IMAGES: as_stored(part)}

    return Reader()


@contextmanager
def quiet() -> Iterator[None]:
    """Without onnxruntime's advice to prepare the graph, which an export is."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
