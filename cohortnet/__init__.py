"""The user's side of Cohortnet: the command line, the prompt, and the record of every run.

The only package that knows `topology`, `fl_node`, `mlfo` and `monitoring`.
"""

__version__ = "0.1.0"
