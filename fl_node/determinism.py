"""Everything that makes a run repeatable to the bit inside one process: seeds and thread counts.

Takes the run's seed and what the number is for; sets the global generators of `random`, NumPy and (where it
is loaded) PyTorch. Never imports PyTorch by itself: an application without it stays small.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from the run's seed and what it is for; the same on every machine."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(*parts: str | int) -> int:
    """Seed `random`, NumPy and PyTorch (where loaded) from `parts`; returns the seed."""
    seed = derive_seed(*parts)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
    return seed


def one_thread() -> None:
    """One compute thread: more give other sums. Call again after loading an application."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    torch = sys.modules.get("torch")
    if torch is not None:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        if torch.get_num_interop_threads() != 1:
            try:
                torch.set_num_interop_threads(1)
            except RuntimeError:  # already in use; only graph executors take it, and they stay deterministic
                return
