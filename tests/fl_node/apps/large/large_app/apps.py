# mypy: ignore-errors
"""A model of any size that goes to the clients and comes back with 1 added; may sleep or fail on the way."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    values = np.arange(config["megabytes"] * 250_000, dtype=np.float32) % 1000
    least = config["min-available"]
    result = FedAvg(min_available_nodes=least, min_train_nodes=1, fraction_evaluate=0.0).start(
        grid, ArrayRecord({"w": Array(values)}), num_rounds=config["rounds"]
    )
    if len(result.arrays):
        after = result.arrays["w"].numpy()
        print("DIFFERENCE", sorted(set((after - values).round(3).tolist())))


@client.train()
def train(message: Message, context: Context) -> Message:
    time.sleep(context.run_config["sleep"])
    if context.run_config["fail"]:
        raise RuntimeError("no data today")
    values = message.content["arrays"]["w"].numpy() + np.float32(1)
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(values)}), "metrics": MetricRecord({"num-examples": 1})}
    )
    return Message(content, reply_to=message)
