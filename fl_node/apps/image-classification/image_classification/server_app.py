"""The ServerApp: FedAvg, with an evaluation on the test set after each round."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from image_classification import task
from image_classification.data import test_data
from image_classification.model import build
from image_classification.settings import parse

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds."""
    settings = parse(context.run_config)
    model = build(settings.model, settings.seed)
    test = test_data(settings) if settings.test_samples else None

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if test is None:
            return None
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = task.evaluate(model, settings.dataset, test)
        return MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(test.labels)})

    strategy = FedAvg(
        fraction_train=settings.fraction_train,
        fraction_evaluate=settings.fraction_evaluate,
        min_train_nodes=settings.min_train_nodes,
        min_evaluate_nodes=settings.min_evaluate_nodes,
        min_available_nodes=settings.min_available_nodes,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=settings.num_server_rounds,
        evaluate_fn=evaluate,
    )
