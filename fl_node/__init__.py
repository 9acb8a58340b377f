"""What runs inside a node: agent, Flower server and client over one stream, spawner, applications."""
