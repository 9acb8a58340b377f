"""Partitioning: properties that hold for any labels, number of clients, alpha and seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_classification import partition

CASES = st.tuples(st.integers(1, 60), st.integers(0, 400), st.integers(1, 10), st.integers(0, 2**32 - 1))


def _labels(samples: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, samples).astype(np.uint8)


def _check(parts: list[np.ndarray], samples: int, clients: int) -> None:
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))  # complete and disjoint
    assert min(map(len, parts)) >= partition.MINIMUM


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_iid_is_complete_disjoint_even_and_seeded(case: tuple[int, int, int, int]) -> None:
    """Sizes differ by at most one."""
    clients, extra, _, seed = case
    samples = clients * partition.MINIMUM + extra
    parts = partition.iid(samples, clients, seed)
    _check(parts, samples, clients)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = partition.iid(samples, clients, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@settings(max_examples=80, deadline=None)
@given(CASES, st.floats(0.001, 100))
def test_dirichlet_is_complete_disjoint_and_seeded(case: tuple[int, int, int, int], alpha: float) -> None:
    """Nobody is left without samples, however small alpha is."""
    clients, extra, classes, seed = case
    samples = clients * partition.MINIMUM + extra
    labels = _labels(samples, classes, seed)
    parts = partition.dirichlet(labels, clients, alpha, seed)
    _check(parts, samples, clients)
    again = partition.dirichlet(labels, clients, alpha, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_dirichlet_skews_as_alpha_says() -> None:
    """The largest class's share in a client: near 1 for 0.05, near a tenth for 1000."""
    labels = _labels(20_000, 10, 1)

    def skew(alpha: float) -> float:
        parts = partition.dirichlet(labels, 20, alpha, 3)
        return float(np.mean([np.bincount(labels[p], minlength=10).max() / len(p) for p in parts]))

    assert skew(0.05) > 0.6 > skew(1.0) > 0.2 > skew(1000)


def test_a_hundred_clients_at_alpha_0_05_all_have_samples() -> None:
    """The case in which plain Dirichlet leaves two clients with nothing."""
    parts = partition.dirichlet(_labels(60_000, 10, 1), 100, 0.05, 1)
    _check(parts, 60_000, 100)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(0, 200), st.floats(0.01, 0.99))
def test_held_out_samples_are_never_trained_on(size: int, cap: int, fraction: float) -> None:
    """Both parts have samples, share none, and training stays within the limit."""
    part = np.arange(size)
    training, validation = partition.hold_out(part, cap, fraction)
    assert len(training) >= 1 and len(validation) >= 1
    assert not set(training) & set(validation)
    if cap >= partition.MINIMUM:
        assert len(training) <= cap + 1


def test_the_default_limit_is_what_is_trained_on() -> None:
    """2,000 images to train on, and a tenth of all held out."""
    training, validation = partition.hold_out(np.arange(15_000), 2000, 0.1)
    assert (len(training), len(validation)) == (2000, 222)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: partition.iid(9, 5, 1), "at most 4 clients"),
        (lambda: partition.iid(9, 0, 1), "expected 1 or more"),
        (lambda: partition.dirichlet(np.zeros(9, dtype=np.uint8), 2, 0, 1), "expected a number above 0"),
        (lambda: partition.split(np.zeros(9, dtype=np.uint8), "shards", 2, 1, 1), "iid, dirichlet"),
    ],
)
def test_errors_say_what_is_allowed(call: object, text: str) -> None:
    """Impossible splits are refused."""
    with pytest.raises(ValueError, match=text):
        call()  # type: ignore[operator]
