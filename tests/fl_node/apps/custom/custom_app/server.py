# mypy: ignore-errors
"""A strategy with its own `start`, after a query by push and pull."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

app = ServerApp()


class Mine(FedAvg):
    def start(self, *args, **kwargs) -> Result:
        print("MY OWN START")
        return super().start(*args, **kwargs)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        if metrics is not None:
            metrics["replies"] = len([reply for reply in replies if not reply.has_error()])
        return arrays, metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = list(grid.get_node_ids())
    ids = grid.push_messages([Message(RecordDict(), node, "query.who") for node in nodes])
    answers = []
    while len(answers) < len(nodes):
        answers.extend(grid.pull_messages(ids))
        time.sleep(0.05)
    print("PARTITIONS", sorted(a.content["answer"]["partition"] for a in answers))
    Mine(min_available_nodes=2).start(
        grid, ArrayRecord({"w": Array(np.zeros(3))}), context.run_config["num-server-rounds"]
    )
