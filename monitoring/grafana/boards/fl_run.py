"""FL run: how a model becomes better, round by round, and what each round and each client takes."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from monitoring.grafana.boards.frame import RUN, SERVER_RUN, TESTBED, Row, board
from monitoring.grafana.boards.pieces import (
    BYTES,
    COUNT,
    MEMORY,
    PLAIN,
    RED,
    SECONDS,
    SHARE,
    YELLOW,
    bars,
    by_round,
    figure,
    graph,
    heat,
    listing,
    now,
    query,
)

EVALUATED = 'source=~"server|distributed"'
CLIENTS_OF_RUN = f'{SERVER_RUN},client=~"$node"'
ITS_OWN = f'{RUN},node=~"$node",role="client",source="client"'
WHO = "cohort {{cohort}}"


def rounds_of(metric: str) -> str:
    """Of a metric that stands for the latest finished round: its value in each round, the round as a label.

    While round r is under way (fl_round says r), the metric is that of round r - 1, until r itself has been evaluated;
    once the run has ended it is that of the last. So of each round only the first samples are taken (two steps, in
    which there is at least one scrape), and those after the run's end. (`without`: see frame.ROUNDS.)
    """
    finished = (
        f"fl_round{{{SERVER_RUN}}} - on (testbed, node, run) group_left () "
        f"max by (testbed, node, run) (fl_run_running{{{SERVER_RUN}}})"
    )
    begun = f"time() - fl_round_timestamp_seconds{{{SERVER_RUN}}} <= $__interval_ms / 500"
    return (
        "max by (cohort, source, run, round) (quantile_over_time(0.5, ("
        f"({metric}{{{SERVER_RUN},{EVALUATED}}} * on (testbed, node, run) group_left (round) "
        f'count_values without (job, instance) ("round", {finished})) '
        f"and on (testbed, node, run) ({begun} or fl_run_running{{{SERVER_RUN}}} == 0)"
        ")[$__range:$__interval]))"
    )


def _state() -> list[object]:
    return [
        figure("Round", "The round under way, or the last one.", COUNT,
               now(f"max by (cohort) (fl_round{{{SERVER_RUN}}})", WHO)),
        figure("Rounds planned", "Where the application says how many.", COUNT,
               now(f"max by (cohort) (fl_rounds_planned{{{SERVER_RUN}}})", WHO), empty="unknown"),
        figure("Accuracy", "Latest, of the global model.", SHARE,
               now(f"max by (cohort) (model_accuracy{{{SERVER_RUN},{EVALUATED}}})", WHO), decimals=1),
        figure("Clients", "Clients of the cohorts that have joined; missing ones are red.", COUNT,
               now(f"sum(fl_clients_joined{{{SERVER_RUN}}})", "joined"),
               now(f"sum(fl_clients_expected{{{SERVER_RUN}}} - fl_clients_joined{{{SERVER_RUN}}})", "missing"))
        .override_by_name("missing", [_thresholds(1.0, RED)]),
        figure("Stragglers", "Replies that took more than twice their phase's median.", COUNT,
               now(f"sum(fl_stragglers_total{{{SERVER_RUN}}})"), limits=((1.0, YELLOW),)),
        figure("Failures", "Error replies of clients, and clients that were lost.", COUNT,
               now(f"sum(fl_client_failures_total{{{SERVER_RUN}}})"), limits=((1.0, RED),)),
    ]  # fmt: skip


def _thresholds(value: float, colour: str) -> model.DynamicConfigValue:
    steps = [{"value": None, "color": "green"}, {"value": value, "color": colour}]
    return model.DynamicConfigValue(id_val="thresholds", value={"mode": "absolute", "steps": steps})


def _learning() -> list[object]:
    legend = "cohort {{cohort}} {{source}}"
    spread = ("min", "avg", "max")
    return [
        graph("Accuracy over time",
              "Of the global model after each round (server, distributed) and of the clients' own models in training "
              "(train).", SHARE,
              query(f'model_accuracy{{{SERVER_RUN}}}', legend), most=1.0, points=True),
        graph("Loss over time",
              "Of the global model after each round (server, distributed) and of the clients' own models in training "
              "(train).", PLAIN, query(f'model_loss{{{SERVER_RUN}}}', legend), points=True, least=None),
        by_round("Accuracy by round", "The same accuracies against the round's number: cohorts whose rounds take "
                 "differently long can be compared.", SHARE, rounds_of("model_accuracy"), ("cohort", "source", "run"),
                 most=1.0),
        by_round("Loss by round", "The same losses against the round's number.", PLAIN, rounds_of("model_loss"),
                 ("cohort", "source", "run")),
        graph("Accuracy of the clients", "Spread of the clients' own latest accuracies.", SHARE,
              *(query(f"{word} by (cohort) (model_accuracy{{{ITS_OWN}}})", f"{WHO} {word}") for word in spread),
              most=1.0, points=True),
        graph("Loss of the clients", "Spread of the clients' own latest losses.", PLAIN,
              *(query(f"{word} by (cohort) (model_loss{{{ITS_OWN}}})", f"{WHO} {word}") for word in spread),
              points=True, least=None),
    ]  # fmt: skip


def _durations() -> list[object]:
    buckets = f"fl_phase_seconds_bucket{{{SERVER_RUN}"
    return [
        graph("Phases of the latest round", "How long training, evaluation, aggregation and the round as a whole took.",
              SECONDS, query(f"max by (cohort, phase) (fl_phase_last_seconds{{{SERVER_RUN}}})", f"{WHO} {{{{phase}}}}"),
              points=True, width=16),
        bars("Mean seconds by phase", "Mean of all rounds of the chosen runs.", SECONDS,
             now(f"sum by (cohort, phase) (fl_phase_seconds_sum{{{SERVER_RUN}}}) / "
                 f"sum by (cohort, phase) (fl_phase_seconds_count{{{SERVER_RUN}}})", f"{WHO} {{{{phase}}}}"),
             width=8, decimals=2),
        graph("Rounds: median and 95 %", "Quantiles of all rounds of the chosen runs so far.", SECONDS,
              query(f'histogram_quantile(0.5, sum by (le, cohort) ({buckets},phase="round"}}))', f"{WHO} median"),
              query(f'histogram_quantile(0.95, sum by (le, cohort) ({buckets},phase="round"}}))', f"{WHO} 95 %"),
              points=True),
        heat("Durations of training phases", "How many training phases ended in each moment, by their duration.",
             SECONDS,
             query(f'sum by (le) (increase({buckets},phase="train"}}[$__rate_interval]))')),
    ]  # fmt: skip


def _traffic() -> list[object]:
    down_up = f"{WHO} {{{{direction}}}}"
    return [
        graph("Bytes a round", "Serialised messages of the latest round: down to the clients, up to the server.", BYTES,
              query(f"sum by (cohort, direction) (fl_client_round_bytes{{{CLIENTS_OF_RUN}}})", down_up), points=True),
        graph("Bytes of the run", "Serialised messages since the run began.", BYTES,
              query(f"sum by (cohort, direction) (fl_message_bytes_total{{{CLIENTS_OF_RUN}}})", down_up)),
        bars("Model", "Size of the model as it is sent.", BYTES,
             now(f"max by (cohort) (fl_model_bytes{{{SERVER_RUN}}})", WHO)),
        graph("Memory of the FL processes",
              "Resident, the largest of each kind, as the processes report it after each message.", MEMORY,
              query(f'max by (cohort, kind) (fl_process_memory_bytes{{{RUN},node=~"$node"}})', f"{WHO} {{{{kind}}}}"),
              width=18, points=True),
    ]  # fmt: skip


def _clients() -> list[object]:
    key = ("cohort", "client")
    by = "by (cohort, client)"
    each = [
        ("training", SECONDS, f'max {by} (fl_client_seconds{{{CLIENTS_OF_RUN},phase="train"}})'),
        ("evaluation", SECONDS, f'max {by} (fl_client_seconds{{{CLIENTS_OF_RUN},phase="evaluate"}})'),
        ("samples", COUNT, f"max {by} (fl_client_samples{{{CLIENTS_OF_RUN}}})"),
        ("down in a round", BYTES, f'max {by} (fl_client_round_bytes{{{CLIENTS_OF_RUN},direction="down"}})'),
        ("up in a round", BYTES, f'max {by} (fl_client_round_bytes{{{CLIENTS_OF_RUN},direction="up"}})'),
        ("bytes in all", BYTES, f"sum {by} (fl_message_bytes_total{{{CLIENTS_OF_RUN}}})"),
    ]
    return [
        graph("Seconds of training by client",
              "Of each client's latest reply: whoever is above the others holds the round up.", SECONDS,
              query(f'max by (client) (fl_client_seconds{{{CLIENTS_OF_RUN},phase="train"}})', "{{client}}"), many=True,
              points=True, width=16),
        bars("Mean of training by cohort", "Mean over the clients' latest replies.", SECONDS,
             now(f'avg by (cohort) (fl_client_seconds{{{SERVER_RUN},phase="train"}})', WHO), width=8, decimals=2),
        listing("Clients", "The latest reply of each client.", key, each, sort="training"),
        graph("Stragglers", "Replies that took more than twice their phase's median, since the run began.", COUNT,
              query(f"sum by (cohort) (fl_stragglers_total{{{SERVER_RUN}}})", WHO), points=True),
        graph("Failures", "Error replies and lost clients, since the run began, by reason.", COUNT,
              query(f"sum by (cohort, client, reason) (fl_client_failures_total{{{CLIENTS_OF_RUN}}})",
                    f"{WHO} {{{{client}}}}: {{{{reason}}}}"), points=True),
    ]  # fmt: skip


def fl_run() -> dashboard.Dashboard:
    """The dashboard `fl-run`."""
    now_row = [*_state()]
    agents = [
        graph("FL processes", "Processes that the nodes' agents know, by kind and state.", COUNT,
              query(f"sum by (kind, state) (cohortnet_agent_processes{{{TESTBED}}})", "{{kind}} {{state}}"), many=True,
              points=True, width=24),
    ]  # fmt: skip
    return board(
        "cohortnet-fl-run",
        "Cohortnet: FL run",
        "One run, or several: learning by time and by round, durations, traffic, clients. `Node` chooses clients.",
        [
            Row("Now", now_row),
            Row("Learning", _learning()),
            Row("Durations", _durations()),
            Row("Clients", _clients()),
            Row("Messages", _traffic()),
            Row("Processes", agents, closed=True),
        ],
        uses=("testbed", "run", "cohort", "node"),
        marks=("Rounds",),
    )
