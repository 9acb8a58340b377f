"""Shows each test of the guest as a test of its own.

On the host the tests of `inside/` are collected as any others, so `-k`, `-m` and paths choose among them; then an item
that asks the guest takes each one's place. The first of them boots it with the whole choice. In the guest (`inside`)
nothing is replaced, and every report goes out over the serial port.
"""

from __future__ import annotations

import json
import os
import resource
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.kernel import guest

WITHIN = os.environ.get("COHORTNET_KERNEL_BENCH") == "inside"
INSIDE = Path(__file__).with_name("inside")
_BENCH = pytest.StashKey["Bench"]()
_SERIAL = pytest.StashKey[TextIO]()


class Bench:
    """The one guest of a session: booted when first asked, its reports kept by test."""

    def __init__(self, tests: list[str]) -> None:
        self.tests = tests
        self.said = ""
        self._used_before = 0.0
        self._guest: guest.Guest | None = None
        self._reports: dict[str, list[dict[str, Any]]] = {}
        self._failed: str | None = None
        self._results: Iterator[dict[str, Any]] = iter(())

    def report(self, test: str) -> list[dict[str, Any]]:
        """The reports of one test (set up, call, tear down). Raises GuestError where it got none."""
        if self._guest is None and self._failed is None:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            self._used_before = used.ru_utime + used.ru_stime
            try:
                self._guest = guest.Guest(self.tests)
                self._results = self._guest.results()
            except (RuntimeError, OSError) as error:
                self._failed = f"the guest cannot be started: {error}"
        while self._failed is None and not self._is_done(test):
            try:
                report = next(self._results, None)
            except guest.GuestError as error:
                self._failed = str(error)
                break
            if report is None:
                assert self._guest is not None
                self._guest.wait_for_end()
                self._failed = f"the guest ended without this test\n{self._guest.tail()}"
            else:
                self._reports.setdefault(report["test"], []).append(report)
        if not self._is_done(test):
            raise guest.GuestError(self._failed or "no report")
        return self._reports[test]

    def _is_done(self, test: str) -> bool:
        return any(report["when"] == "teardown" for report in self._reports.get(test, ()))

    def finish(self, complete: bool) -> str | None:
        """The guest goes off; gives back what was wrong with that. `complete`: all of its tests were asked for."""
        if self._guest is None:
            return None
        try:
            if not complete or self._failed is not None:
                return None
            for _ in self._results:
                pass
            status = self._guest.wait_for_end()
            if status != 0:
                return f"the guest did not go off by itself (status {status})\n{self._guest.tail()}"
            return None
        except guest.GuestError as error:
            return str(error)
        finally:
            self._guest.end()
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.said = (
                f"kernel {self._guest.release}, {self._guest.seconds:.0f} s from power on to off, "
                f"{used.ru_utime + used.ru_stime - self._used_before:.0f} s of processor time"
            )


class GuestTest(pytest.Item):
    """A test that runs in the guest, seen from the host."""

    bench: Bench

    def runtest(self) -> None:
        reports = self.bench.report(self.nodeid)
        for report in reports:
            for title, text in report["sections"]:
                self.add_report_section(report["when"], title, text)
        wrong = [report for report in reports if report["outcome"] != "passed"]
        if wrong:  # one that is skipped too: the guest is there to have what a test needs
            raise guest.GuestError("\n".join(f"{report['when']}: {report['text']}" for report in wrong))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, guest.GuestError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if WITHIN:
        return
    mine = [item for item in items if item.path.is_relative_to(INSIDE)]
    if not mine:
        return
    bench = Bench([item.nodeid for item in mine])
    config.stash[_BENCH] = bench
    for place, item in enumerate(items):
        if item.path.is_relative_to(INSIDE):
            assert item.parent is not None
            shown = GuestTest.from_parent(item.parent, name=item.name, nodeid=item.nodeid)
            shown.bench = bench
            shown.add_marker(pytest.mark.timeout(guest.DEADLINE_S + 60))
            items[place] = shown


def pytest_sessionstart(session: pytest.Session) -> None:
    if WITHIN:
        serial = open(guest.RESULTS, "w", encoding="utf-8")  # noqa: SIM115  (closed by the guest's end)
        tty.setraw(serial.fileno(), termios.TCSANOW)
        session.config.stash[_SERIAL] = serial


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    if not WITHIN:
        return
    report = outcome.get_result()
    line = {"test": item.nodeid, "when": report.when, "outcome": report.outcome, "seconds": report.duration,
            "text": report.longreprtext[-20_000:],
            "sections": [[title, text[-20_000:]] for title, text in report.sections] if report.when == "teardown"
            else []}  # fmt: skip
    serial = item.config.stash[_SERIAL]
    serial.write(json.dumps(line) + "\n")
    serial.flush()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    bench = session.config.stash.get(_BENCH, None)
    if bench is None:
        return
    complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.shouldstop
    problem = bench.finish(complete)
    if problem:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        bench.said = f"{bench.said}; {problem}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    bench = config.stash.get(_BENCH, None)
    if bench is not None and bench.said:
        terminalreporter.line(f"kernel bench: {bench.said}")
