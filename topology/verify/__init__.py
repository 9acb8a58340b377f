"""Declared against measured: what a raised testbed's links and paths really do, compared with its inventory."""
