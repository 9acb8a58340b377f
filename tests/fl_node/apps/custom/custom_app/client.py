# mypy: ignore-errors
"""Adds 1 to the model each round; counts its calls in Context.state; a mod counts messages in the metrics."""

import os
import signal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable


def marking_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    reply = call_next(message, context)
    if reply.has_content() and "metrics" in reply.content:
        reply.content["metrics"]["marked"] = 1
    return reply


app = ClientApp(mods=[marking_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    state = context.state.config_records.setdefault("count", ConfigRecord({"calls": 0}))
    state["calls"] += 1
    values = message.content["arrays"]["w"].numpy() + 1 + float(np.random.random())
    metrics = MetricRecord({"calls": state["calls"], "num-examples": 1 + context.node_config["partition-id"]})
    marker = os.environ.get("TEST_DIE_ONCE")
    if (
        marker
        and context.node_config["partition-id"] == 0
        and state["calls"] == 2
        and not os.path.exists(marker)
    ):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    content = RecordDict({"arrays": ArrayRecord({"w": Array(values)}), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"loss": float(message.content["arrays"]["w"].numpy().mean()), "num-examples": 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.query("who")
def who(message: Message, context: Context) -> Message:
    record = ConfigRecord({"partition": context.node_config["partition-id"]})
    return Message(RecordDict({"answer": record}), reply_to=message)
