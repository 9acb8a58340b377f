"""Makes a Plan real, and takes it away again."""
