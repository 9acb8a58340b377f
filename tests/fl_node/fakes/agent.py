"""The real agent, which executes the fake process for every request. Arguments: those of fl_node.agent."""

import sys
from pathlib import Path

from fl_node.agent.serve import main


def commands(kind: str, config: Path) -> list[str]:
    return ["python", "-m", "tests.fl_node.fakes.process", "--config", str(config)]


def resolve(application: str) -> Path:
    if application == "nonsense":
        raise ValueError("application 'nonsense' is not known; known: image_classification")
    return Path(__file__).parent


if __name__ == "__main__":
    sys.exit(main(commands=commands, resolve=resolve))
