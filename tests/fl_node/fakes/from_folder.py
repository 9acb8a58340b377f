"""Runs a module of a folder: `python -m tests.fl_node.fakes.from_folder FOLDER MODULE ARGS`."""

import runpy
import sys

if __name__ == "__main__":
    folder, module, *rest = sys.argv[1:]
    sys.path.insert(0, folder)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
