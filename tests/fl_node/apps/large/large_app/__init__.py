"""A large model."""
