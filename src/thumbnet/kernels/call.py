"""Calling the C: tensors become pointers, None the pointer to nothing."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from thumbnet.kernels.library import library

C_TYPES = {int: ctypes.c_long, float: ctypes.c_double, type(None): ctypes.c_void_p}


def call(name: str, number: torch.dtype, *values: Any) -> int:
    """A function of the C for such numbers: tensors and None as pointers, integers as long, others as double, then the threads.

    Gives the long that it returns, which means nothing of a function that returns none.
    """
    arguments = [
        ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else C_TYPES[type(value)](value)
        for value in (*values, torch.get_num_threads())
    ]
    function = getattr(library(number), name)
    function.restype = ctypes.c_long
    return int(function(*arguments))
