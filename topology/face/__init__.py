"""Mininet's and Containernet's words over this project's engine; `topology.containernet` is what scripts import."""
