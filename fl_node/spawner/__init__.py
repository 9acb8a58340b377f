"""The spawner: one process on the host, for each testbed of the namespace runtime, that forks programs into
nodes.

It imports Python, NumPy, gRPC, Flask and Flower once; each application gets a template of its own (a forked
process that also imports PyTorch and is warmed with the application and its data). A node's process is a fork
of one of the two, so it starts in milliseconds and shares the pages of what was imported before. Every
process that forks has one thread.

    spawner (base template) ──fork──> agents, MLFOs, any `python -m ...`; other commands are executed after
    joining
        └──fork──> template of an application ──fork──> FL servers and clients of that application

Run it with `python -m fl_node.spawner --inventory PATH --socket PATH`; the protocol is in
docs/architecture.md.
"""
