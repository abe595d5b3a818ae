"""Calling the C: tensors become pointers, None the pointer to nothing."""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from thumbnet.kernels.library import library


def call(name: str, number: torch.dtype, *values: Any) -> int:
    """A function of the C for such numbers: tensors and None as pointers, integers as long, others as double, then the threads.

    Gives the long that it returns, which means nothing of a function that returns none.
    """
    function = function_of(name, number)
    values = (*values, torch.get_num_threads())
    if function.argtypes is None:  # told once: converting each argument here would take as long as a small map
        function.argtypes = [c_type(value) for value in values]
    return int(function(*[value.data_ptr() if isinstance(value, Tensor) else value for value in values]))


@cache
def function_of(name: str, number: torch.dtype) -> Any:
    function = getattr(library(number), name)
    function.restype = ctypes.c_long
    return function


def c_type(value: Any) -> Any:
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p
    return ctypes.c_double if isinstance(value, float) else ctypes.c_long
