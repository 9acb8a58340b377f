"""The orchestrator of machine learning functions (after ITU-T Y.3172): intents become federated runs.

The way of an intent: ``document`` (YAML text, bounded) -> ``intent`` (what the user wrote, checked) ->
``pipeline`` (what will run, and where; pure) -> ``store`` (kept) -> ``conduct`` (one intent's life: allocate,
start, follow, end). The edge role does all of that; the central role owns the servers (``allocation``,
``central``). The two speak Mo-Mo (``proto/momo.proto``). Nodes are reached over the agents' REST interface
(``agents``, ``follow``). This package imports no other package of the project.
"""
