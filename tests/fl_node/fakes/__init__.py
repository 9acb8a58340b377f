"""Small programs that stand in for FL processes and for warming, so that the agent and the spawner meet real
processes."""
