"""What runs inside a node: agent (REST), FL server and client, applications; and the spawner that forks them
into nodes."""
