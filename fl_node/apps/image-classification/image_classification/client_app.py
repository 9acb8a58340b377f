"""The ClientApp: trains and evaluates on this client's partition."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from image_classification import task
from image_classification.data import Split, client_data
from image_classification.model import build
from image_classification.settings import Settings, parse

app = ClientApp()

_own: dict[tuple[Settings, int, int], tuple[Split, Split]] = {}


def _data(settings: Settings, context: Context) -> tuple[Split, Split]:
    """This client's data, read once a process."""
    key = (settings, int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    if key not in _own:
        _own.clear()
        _own[key] = client_data(*key)
    return _own[key]


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on the training part; send it back with its metrics."""
    settings = parse(context.run_config)
    training, _ = _data(settings, context)
    model = build(settings.model)
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    loss, accuracy = task.train(
        model,
        settings.dataset,
        training,
        epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
    )
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(training.labels)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on the held-out part."""
    settings = parse(context.run_config)
    _, validation = _data(settings, context)
    model = build(settings.model)
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    loss, accuracy = task.evaluate(model, settings.dataset, validation)
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(validation.labels)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
