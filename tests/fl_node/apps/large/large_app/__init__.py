# mypy: ignore-errors
"""A large model."""
