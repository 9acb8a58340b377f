"""The data sets, as NumPy arrays of 28 by 28 images; real, and read from local files only.

Owns reading and scaling. A data set that was loaded by `warm` stays in memory and is shared by all forked
clients; otherwise a client keeps its own partition only.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification import partition
from image_classification.settings import Settings, parse

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
DIGITS = Path(__file__).resolve().parent / "files" / "digits.json"
DIGITS_TEST = 360  # of 1797, the last ones: other writers than the first
_SCALING = {
    "fashionmnist": (0.2860, 0.3530),
    "digits": (0.2238, 0.3488),
}  # mean and deviation of pixels in 0..1


@dataclass(frozen=True)
class Split:
    """Images (N, 28, 28) as uint8, labels (N,) as uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


_pinned: dict[tuple[str, bool], Split] = {}


def warm(config: Mapping[str, Any]) -> None:
    """Load the data set of a run config for good, before clients are forked from this process."""
    name = parse(config).dataset
    for train in (True, False):
        _pinned.setdefault((name, train), load(name, train))


def load(name: str, train: bool) -> Split:
    """One half of a data set. Raises FileNotFoundError that says what to install."""
    if (name, train) in _pinned:
        return _pinned[name, train]
    if name == "digits":
        return _digits(train)
    return _fashion_mnist(train)


def _fashion_mnist(train: bool) -> Split:
    folder = Path(os.environ.get("COHORTNET_FASHION_MNIST") or FASHION_MNIST)
    stem = "train" if train else "t10k"
    images = _idx(folder / f"{stem}-images-idx3-ubyte", 3)
    labels = _idx(folder / f"{stem}-labels-idx1-ubyte", 1)
    return Split(images, labels)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (yann.lecun.com/exdb/mnist), gzipped or not."""
    packed = path.with_name(path.name + ".gz")
    if packed.is_file():
        raw = gzip.decompress(packed.read_bytes())
    elif path.is_file():
        raw = path.read_bytes()
    else:
        raise FileNotFoundError(
            f"Fashion-MNIST is not here: no {packed.name} in {path.parent}. Install it with "
            "`apt-get install dataset-fashion-mnist`, or name its folder in COHORTNET_FASHION_MNIST"
        )
    head = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) != head + int(np.prod(shape)):
        raise ValueError(f"{path}: not an IDX file of {dimensions} dimensions, or cut short")
    return np.frombuffer(raw, dtype=np.uint8, offset=head).reshape(shape)


def _digits(train: bool) -> Split:
    file = json.loads(DIGITS.read_text(encoding="ascii"))
    images, labels = (
        np.frombuffer(zlib.decompress(base64.b64decode(file[key])), dtype=np.uint8)
        for key in ("images", "labels")
    )
    images = images.reshape(file["shape"])
    part = slice(None, -DIGITS_TEST) if train else slice(-DIGITS_TEST, None)
    # 8 by 8 in 17 levels -> 24 by 24 by repetition -> 28 by 28 with a border: one input shape for all models
    large = np.kron(images[part], np.ones((1, 3, 3), dtype=np.uint8)).astype(np.uint16) * 255 // 16
    return Split(np.pad(large.astype(np.uint8), ((0, 0), (2, 2), (2, 2))), labels[part])


def scale(name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 28, 28) bytes to (N, 1, 28, 28) floats of about mean 0 and deviation 1."""
    mean, deviation = _SCALING[name]
    scaled = (images[:, None].astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(deviation)
    return scaled


def client_data(settings: Settings, partition_id: int, num_partitions: int) -> tuple[Split, Split]:
    """(training, validation) of one client; copies, so that the rest of the data set can be freed."""
    if not 0 <= partition_id < num_partitions:
        raise ValueError(f"partition-id: found {partition_id}, expected 0 to {num_partitions - 1}")
    full = load(settings.dataset, train=True)
    parts = partition.split(
        full.labels, settings.partitioner, num_partitions, settings.dirichlet_alpha, settings.seed
    )
    training, validation = partition.hold_out(
        parts[partition_id], settings.samples_per_client, settings.validation_fraction
    )
    return (
        Split(full.images[training], full.labels[training]),
        Split(full.images[validation], full.labels[validation]),
    )


def test_data(settings: Settings) -> Split:
    """The server's test set: at most `test-samples` of it, in the file's own (shuffled) order."""
    full = load(settings.dataset, train=False)
    return Split(full.images[: settings.test_samples], full.labels[: settings.test_samples])
