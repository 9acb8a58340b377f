"""Monitoring: reads the inventory, serves and configures metrics. Its parts are listed in docs/architecture.md."""
