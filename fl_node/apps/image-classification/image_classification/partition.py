"""Who gets which samples: pure NumPy, seeded, the same on every machine.

Takes labels, gives one array of sample indices for each client. All samples are given out, none twice, and
every client has at least `minimum` of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
PARTITIONERS = ("iid", "dirichlet")
MINIMUM = 2  # one sample to train on and one to evaluate on


def iid(num_samples: int, num_partitions: int, seed: int) -> list[Indices]:
    """Shuffle and deal out; sizes differ by at most one. Raises ValueError on too few samples."""
    _check(num_samples, num_partitions)
    order = np.random.default_rng(seed).permutation(num_samples)
    return [part.astype(np.int64) for part in np.array_split(order, num_partitions)]


def dirichlet(labels: NDArray[np.integer], num_partitions: int, alpha: float, seed: int) -> list[Indices]:
    """Label skew: each class is dealt out by shares drawn from Dirichlet(alpha) (Hsu et al., 2019,
    arXiv:1909.06335).

    Small alphas leave some clients with nothing (0.05 over 100 clients: two of them). Each client below the
    minimum is then given samples, one at a time, of the client that has most (the first of equals), taken
    from the end of its list. Raises ValueError where alpha is not positive or there are too few samples.
    """
    if not alpha > 0:
        raise ValueError(f"dirichlet-alpha: found {alpha}, expected a number above 0")
    _check(len(labels), num_partitions)
    rng = np.random.default_rng(seed)
    parts: list[list[Indices]] = [[] for _ in range(num_partitions)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_partitions, alpha))
        if not np.all(np.isfinite(shares)):  # alphas near zero underflow: one client gets the class
            shares = np.zeros(num_partitions)
            shares[rng.integers(num_partitions)] = 1.0
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece.astype(np.int64))
    shuffled = [rng.permutation(np.concatenate(part)) for part in parts]
    return _top_up(shuffled)


def _top_up(parts: list[Indices]) -> list[Indices]:
    sizes = np.array([len(part) for part in parts])
    gained: dict[int, list[int]] = {}
    for poor in np.flatnonzero(sizes < MINIMUM):
        while sizes[poor] < MINIMUM:
            rich = int(np.argmax(sizes))
            sizes[rich] -= 1
            sizes[poor] += 1
            gained.setdefault(int(poor), []).append(int(parts[rich][sizes[rich]]))
    kept = [part[: min(len(part), int(size))] for part, size in zip(parts, sizes, strict=True)]
    return [
        np.concatenate([part, np.array(gained.get(i, []), dtype=np.int64)]) for i, part in enumerate(kept)
    ]


def _check(num_samples: int, num_partitions: int) -> None:
    if num_partitions < 1:
        raise ValueError(f"number of partitions: found {num_partitions}, expected 1 or more")
    if num_samples < MINIMUM * num_partitions:
        raise ValueError(
            f"{num_samples} samples cannot be split over {num_partitions} clients, {MINIMUM} each at least: "
            f"take at most {num_samples // MINIMUM} clients, or a larger data set"
        )


def split(
    labels: NDArray[np.integer], partitioner: str, num_partitions: int, alpha: float, seed: int
) -> list[Indices]:
    """All partitions of a data set. Raises ValueError on an unknown partitioner."""
    if partitioner == "iid":
        return iid(len(labels), num_partitions, seed)
    if partitioner == "dirichlet":
        return dirichlet(labels, num_partitions, alpha, seed)
    raise ValueError(f"partitioner: found {partitioner!r}, allowed are {', '.join(PARTITIONERS)}")


def hold_out(part: Indices, samples: int, fraction: float) -> tuple[Indices, Indices]:
    """(training, validation) of one client's partition; neither is empty.

    `samples` limits the training part (0: no limit); the held-out part then stands in the same proportion to
    it as it would for the whole partition, so that `fraction` always means the share of what a client uses.
    """
    used = part[: max(MINIMUM, round(samples / (1 - fraction)))] if samples else part
    held = min(max(1, round(len(used) * fraction)), len(used) - 1)
    return used[: len(used) - held], used[len(used) - held :]
