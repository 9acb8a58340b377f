"""Executes a command that is killed when the thread that started it ends. A program of its own: `leash.py
PARENT ARGV...`.

subprocess's preexec_fn may deadlock in a program with threads; this small program between fork and exec may
not.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit("leash: prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # the agent ended before the request was made
        sys.exit("leash: the agent has ended")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(argv[0], argv)
