"""An application of somebody else."""
