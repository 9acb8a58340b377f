"""Runs one program of the system to its end. Owns the time-out, and the error that names the command."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from topology.errors import CommandError

TIMEOUT_S = 20.0


def run(
    command: Sequence[str],
    subject: str,
    *,
    text: str | None = None,
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command with `text` as its input, in the namespaces of the calling thread; gives back its output.

    Raises:
        CommandError: names `subject`; where the program is missing, does not end within `timeout_s` seconds, or fails.
    """
    try:
        done = subprocess.run(
            list(command), input=text, capture_output=True, text=True, timeout=timeout_s, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        raise CommandError(command, None, f"it took longer than {timeout_s:g} s", subject) from None
    except OSError as error:
        raise CommandError(command, None, error.strerror or str(error), subject) from None
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr, subject)
    return done.stdout


def tc_batch(lines: Sequence[Sequence[str]], subject: str, *, timeout_s: float = TIMEOUT_S) -> None:
    """Put lines through one `tc -batch`. Raises CommandError."""
    run(["tc", "-batch", "-"], subject, text="".join(" ".join(line) + "\n" for line in lines), timeout_s=timeout_s)
