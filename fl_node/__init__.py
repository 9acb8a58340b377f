"""What runs inside a node: agent, spawner, the stream transport, client and server of Flower runs, applications."""
