"""Calling the C: tensors become pointers."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from thumbnet.kernels.library import library

C_TYPES = {int: ctypes.c_long, float: ctypes.c_double}


def call(name: str, *values: Any) -> None:
    """A function of the C: tensors as pointers, whole numbers as long, others as double, then the number of threads."""
    arguments = [
        ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else C_TYPES[type(value)](value)
        for value in (*values, torch.get_num_threads())
    ]
    getattr(library(), name)(*arguments)
