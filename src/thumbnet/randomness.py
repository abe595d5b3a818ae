"""Randomness as a function of its key: (seed, purpose, epoch, step) gives the draws, whatever was drawn before.

So a resumed run repeats the unbroken one, and no counter or generator state has to be saved.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Key = int | str


def seed_of(*key: Key) -> int:
    """A 63-bit seed that depends on every part of the key. SHA-256 keeps neighbouring seeds, epochs and steps unrelated."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(device: torch.device | str, *key: Key) -> torch.Generator:
    """A fresh generator for one purpose, for instance `generator("cpu", seed, "order", epoch)`."""
    return torch.Generator(device).manual_seed(seed_of(*key))


@contextmanager
def global_draws(device: torch.device | str, *key: Key) -> Iterator[None]:
    """Inside, torch's global generator is a function of the key; afterwards it is as it was before.

    For code that can draw from nowhere else: `nn.Dropout`, and the constructors of layers.
    """
    device = torch.device(device)
    here = torch.get_device_module(device)  # torch.cpu, torch.cuda or torch.mps
    before = torch.random.get_rng_state()
    before_on_device = None if device.type == "cpu" else here.get_rng_state()
    torch.default_generator.manual_seed(seed_of(*key))
    if before_on_device is not None:
        here.manual_seed(seed_of(*key))
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
        if before_on_device is not None:
            here.set_rng_state(before_on_device)
