"""The node agent: REST on port 5000 that starts, watches and stops a node's FL processes. Run: `python -m
fl_node.agent`."""
