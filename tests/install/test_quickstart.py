"""The order in which quickstart.sh calls `cohortnet`, and that it always takes down what it raised.

The command and curl are stood in for by programs that note how they were called: what is guarded is how the
script behaves on failure and Ctrl-C, which a real testbed reaches slowly. The tests of the whole system run
the real thing.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

COHORTNET = """#!/bin/sh
echo "cohortnet $*" >>{calls}
case "$1" in
    doctor) echo '{{"capabilities": {{"netem": {netem}}}, "findings": []}}' ;;
    up) exit ${{UP_STATUS:-0}} ;;
    intent) sleep "${{WAIT_SECONDS:-0}}"; exit "${{WAIT_STATUS:-0}}" ;;
esac
"""
CURL = """#!/bin/sh
echo "curl $*" >>{calls}
n=$(grep -c ^curl {calls})
echo '{{"id": "run-'$n'", "notes": ["note '$n'"]}}'
"""
# Installing is not what is looked at here; the rest of lib.sh is the real one.
LIBRARY = """
need_root() { :; }; apt_missing() { :; }; make_venv() { :; }
"""


class Checkout:
    """A folder with the real scripts and the programs that stand in."""

    def __init__(self, folder: Path, *, netem: bool) -> None:
        self.folder, self.calls_file = folder, folder / "calls"
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        with (folder / "scripts/lib.sh").open("a") as file:
            file.write(LIBRARY)
        command = COHORTNET.format(calls=self.calls_file, netem=str(netem).lower())
        self._program(".venv/bin/cohortnet", command)
        self._program("bin/curl", CURL.format(calls=self.calls_file))
        (folder / ".venv/bin/python").symlink_to(sys.executable)

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return subprocess.Popen(
            [str(self.folder / "scripts/quickstart.sh"), *options],
            env=os.environ | {"PATH": path} | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # Where the tests run in the background, SIGINT is ignored, and a shell cannot take that back.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path, netem=False)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_raises_posts_waits_and_takes_down(checkout: Checkout) -> None:
    status, output = finish(checkout.start("--rounds", "5"))
    assert status == 0, output
    calls = checkout.calls()
    order = [call.split()[1] for call in calls if call.startswith("cohortnet")]
    assert order == ["doctor", "up", "intent", "down"]
    up = next(call for call in calls if call.startswith("cohortnet up"))
    assert "--preset factory-satellite --cohorts 2 --clients 8 --campuses 2 --name quickstart" in up
    assert up.endswith("--runtime namespace --allow-unsupported delay")
    assert "cannot delay" in output
    posts = [call for call in calls if call.startswith("curl")]
    assert "ipstart=10" in posts[0] and "ipstart=14" in posts[1]
    for post in posts:
        assert "cohortsize=4" in post and "numround=5" in post and "http://127.0.0.1:8000/receive" in post
    assert "cohortnet intent wait run-1 run-2 --testbed quickstart" in calls
    assert "note 1" in output and "note 2" in output


def test_a_kernel_that_can_delay_is_not_excused(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, netem=True)
    status, output = finish(checkout.start())
    assert status == 0, output
    assert not [call for call in checkout.calls() if "--allow-unsupported" in call]


def test_kept_only_where_it_went_well(checkout: Checkout) -> None:
    status, output = finish(checkout.start("--keep"))
    assert status == 0
    assert not [call for call in checkout.calls() if call.startswith("cohortnet down")]
    assert "cohortnet down quickstart" in output


@pytest.mark.parametrize("failure", [{"UP_STATUS": "1"}, {"WAIT_STATUS": "1"}])
@pytest.mark.parametrize("options", [[], ["--keep"]])
def test_a_failure_takes_down_and_is_the_exit_status(
    checkout: Checkout, failure: dict[str, str], options: list[str]
) -> None:
    status, _ = finish(checkout.start(*options, **failure))
    assert status == 1
    assert checkout.calls()[-1] == "cohortnet down quickstart"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_takes_down(checkout: Checkout, number: int, expected: int) -> None:
    process = checkout.start(WAIT_SECONDS="30")
    deadline = time.monotonic() + 30
    while not [call for call in checkout.calls() if call.startswith("cohortnet intent wait")]:
        assert time.monotonic() < deadline, "the script never came to wait for the intents"
        time.sleep(0.05)
    started = time.monotonic()
    os.killpg(process.pid, number)
    status, _ = finish(process)
    assert status == expected
    assert checkout.calls()[-1] == "cohortnet down quickstart"
    assert time.monotonic() - started < 10
