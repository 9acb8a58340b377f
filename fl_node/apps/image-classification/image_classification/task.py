"""Training and evaluation of a model on arrays: plain PyTorch, nothing of federation."""

from __future__ import annotations

import torch
from torch import nn

from image_classification.data import Split, scale

_EVALUATION_BATCH = 100


def train(
    model: nn.Module,
    dataset: str,
    split: Split,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
) -> tuple[float, float]:
    """SGD over `split`; returns the mean (loss, accuracy) of the last epoch's batches."""
    images = torch.from_numpy(scale(dataset, split.images))
    labels = torch.from_numpy(split.labels.astype("int64"))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    model.train()
    loss_sum = correct = 0.0
    for _ in range(epochs):
        loss_sum = correct = 0.0
        order = torch.randperm(len(labels))
        for batch in order.split(batch_size):
            optimizer.zero_grad()
            scores = model(images[batch])
            loss = criterion(scores, labels[batch])
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            correct += (scores.argmax(1) == labels[batch]).sum().item()
    return loss_sum / len(labels), correct / len(labels)


def evaluate(model: nn.Module, dataset: str, split: Split) -> tuple[float, float]:
    """Mean (loss, accuracy) over `split`."""
    criterion = nn.CrossEntropyLoss(reduction="sum")
    model.eval()
    loss_sum = correct = 0.0
    with torch.no_grad():
        for start in range(0, len(split.labels), _EVALUATION_BATCH):
            images = torch.from_numpy(scale(dataset, split.images[start : start + _EVALUATION_BATCH]))
            labels = torch.from_numpy(split.labels[start : start + _EVALUATION_BATCH].astype("int64"))
            scores = model(images)
            loss_sum += criterion(scores, labels).item()
            correct += (scores.argmax(1) == labels).sum().item()
    return loss_sum / len(split.labels), correct / len(split.labels)
