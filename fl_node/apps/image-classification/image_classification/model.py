"""The models, by name; each takes (N, 1, 28, 28) and gives 10 scores."""

from __future__ import annotations

import torch
from torch import nn


def lenet() -> nn.Module:
    """LeNet-5 with ReLU and max pooling (LeCun et al., 1998): 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def mlp() -> nn.Module:
    """One hidden layer of 128: 101,770 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def build(name: str, seed: int | None = None) -> nn.Module:
    """A model by name; with `seed` its first weights are always the same."""
    if seed is not None:
        torch.manual_seed(seed)
    return {"lenet": lenet, "mlp": mlp}[name]()
