"""Start the agent of this node: `python -m fl_node.agent`. Identity comes from the environment
(docs/architecture.md)."""

import sys

from fl_node.agent.serve import main

if __name__ == "__main__":
    sys.exit(main())
