# mypy: ignore-errors
"""An application of somebody else."""
