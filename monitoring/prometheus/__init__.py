"""Prometheus for a testbed: its configuration, targets and rules (pure), the files that hold them, and its process."""
