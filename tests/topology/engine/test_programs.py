"""One program of the system: its output, and an error that says which of three ways it failed."""

from __future__ import annotations

import pytest

from topology.engine import programs
from topology.errors import CommandError


def test_the_output_is_given_back_and_the_text_is_the_input() -> None:
    assert programs.run(["cat"], "test", text="a\nb\n") == "a\nb\n"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["sh", "-c", "echo broken >&2; exit 3"], 3, "`sh -c echo broken >&2; exit 3` ended with status 3: broken"),
        (["no-such-program"], None, "`no-such-program` was not carried out: No such file or directory"),
        (["sleep", "5"], None, "`sleep 5` was not carried out: it took longer than 0.1 s"),
    ],
)
def test_each_failure_says_what_it_was(command: list[str], status: int | None, words: str) -> None:
    with pytest.raises(CommandError) as caught:
        programs.run(command, "the core", timeout_s=0.1 if command[0] == "sleep" else 10.0)
    assert caught.value.status == status
    assert str(caught.value) == f"the core: {words}"
