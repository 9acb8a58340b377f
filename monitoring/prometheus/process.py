"""Prometheus as a child of the monitoring daemon: started, watched, started again a few times, ended.

It always ends with its parent, also where that is killed: the kernel sends it SIGKILL then. In-band it runs in the
network namespace and the control groups of its node, with the host's file system.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from monitoring.prometheus import config, files

log = logging.getLogger("monitoring")

MOST_RESTARTS = 5
BACKOFF_S = 1.0
READY_S = 30.0
END_S = 0.5
"""For Prometheus to close its files after SIGTERM; what it has not written then is in its log of samples."""
_SMALL = {"GOMAXPROCS": "1", "GOGC": "200"}
"""For some tens of thousands of series one thread does, and is not in the way of what is measured."""
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'


class PrometheusError(Exception):
    """Prometheus cannot be started or does not work; the text is meant for the user."""


def find_program() -> str:
    """Where Prometheus is installed. Raises PrometheusError."""
    # A daemon's PATH may lack the folders of an administrator's.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/bin", "/usr/bin", "/usr/sbin"))
    program = shutil.which("prometheus", path=path)
    if program is None:
        raise PrometheusError("prometheus is not installed; `sudo apt-get install prometheus` installs it, "
                              "`monitoring: {prometheus: none}` does without")  # fmt: skip
    return program


def knows(program: str, option: str) -> bool:
    """Whether that Prometheus takes an option, also one that its help does not name."""
    try:
        done = subprocess.run([program, option, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def check_port(address: str) -> None:
    """Raises PrometheusError where somebody listens at `IP:PORT` already."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise PrometheusError(
                f"{address} for Prometheus cannot be used: {error.strerror}; write `monitoring: {{port: PORT}}` with a "
                "free one (`sudo systemctl disable --now prometheus` ends the service of Debian's package)"
            ) from None


class Prometheus:
    """The server of one testbed. Call everything from the main thread: the child's life hangs on that thread."""

    def __init__(self, inventory: Mapping[str, Any], log_file: Path) -> None:
        self.inventory = inventory
        self.log_file = log_file
        self.restarts = 0
        self.given_up = False
        self._program = find_program()
        self._process: subprocess.Popen[bytes] | None = None
        self._again = 0.0
        self._started_in: int | None = None

    @property
    def _monitoring(self) -> Mapping[str, Any]:
        monitoring: Mapping[str, Any] = self.inventory["monitoring"]
        return monitoring

    @property
    def url(self) -> str:
        """Where the host reaches it."""
        return f"http://{self._monitoring['prometheus_address']}"

    def start(self) -> None:
        """Write its files and start it. Raises PrometheusError."""
        try:
            files.write_configuration(self.inventory)
            files.write_targets(self.inventory)
            space = files.retention_bytes(Path(self._monitoring["folder"]))
        except OSError as error:
            raise PrometheusError(f"the files of Prometheus cannot be written: {error}") from None
        if self._monitoring["prometheus"] == "host":
            check_port(self._monitoring["prometheus_address"])
        log.info("prometheus keeps %s of samples, at most %d MiB",
                 config.duration(float(self._monitoring["retention_s"])), space // 2**20)  # fmt: skip
        self._launch(space)

    def _launch(self, space: int) -> None:
        options = [config.PICK_UP_OPTION] if knows(self._program, config.PICK_UP_OPTION) else []
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *self._entering(),
                *config.command(self._program, self._monitoring, space, *options)]  # fmt: skip
        groups = self._node()["cgroups"] if self._monitoring["prometheus"] == "in-band" else []
        with self.log_file.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _JOIN, "join", *groups, "--", *argv], stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, cwd="/", env={"PATH": os.environ.get("PATH", os.defpath), **_SMALL},
                )  # fmt: skip
            except OSError as error:
                raise PrometheusError(f"prometheus cannot be started: {error}") from None

    def _node(self) -> Mapping[str, Any]:
        name = self._monitoring["node"]
        for node in self.inventory["nodes"]:
            if node["name"] == name and node["pid"]:
                found: Mapping[str, Any] = node
                return found
        raise PrometheusError(f"{name}, the node that Prometheus runs in, does not run")

    def _entering(self) -> list[str]:
        if self._monitoring["prometheus"] != "in-band":
            return []
        self._started_in = int(self._node()["pid"])
        return ["nsenter", f"--net=/proc/{self._started_in}/ns/net", "--"]

    def wait_ready(self) -> None:
        """Wait until it answers. Raises PrometheusError with the end of its log."""
        deadline = time.monotonic() + READY_S
        with requests.Session() as session:
            session.trust_env = False
            while True:
                with suppress(requests.RequestException):
                    if session.get(f"{self.url}/-/ready", timeout=(1.0, 2.0)).status_code == 200:
                        return
                ended = self._process.poll() if self._process else None
                if ended is not None or time.monotonic() > deadline:
                    what = f"ended with status {ended}" if ended is not None else f"was not ready in {READY_S:g} s"
                    raise PrometheusError(f"prometheus {what}; the end of {self.log_file}:\n{self._tail()}")
                time.sleep(0.05)

    def watch(self) -> None:
        """Look after it: one that ended is started again, at most `MOST_RESTARTS` times; after that it stays away and
        the log says so."""
        if self.given_up or self._process is None:
            return
        status = self._process.poll()
        if status is None:
            return
        if not self._again:
            if self.restarts >= MOST_RESTARTS:
                self.given_up = True
                log.error("prometheus has ended %d times (last with status %s) and is not started again: NO SERIES ARE "
                          "KEPT from here on. The end of %s:\n%s", self.restarts + 1, status, self.log_file,
                          self._tail())  # fmt: skip
                return
            self._again = time.monotonic() + BACKOFF_S * 2**self.restarts
            log.warning("prometheus ended with status %s; it is started again: there is a gap in the series", status)
        elif time.monotonic() >= self._again:
            self._again = 0.0
            self.restarts += 1
            try:
                self.start()
            except PrometheusError as error:
                log.error("%s", error)

    def follow(self, inventory: Mapping[str, Any]) -> None:
        """Take a changed inventory: targets anew, and a new start where its node came back as another process.

        Raises OSError where the targets cannot be written.
        """
        self.inventory = inventory
        changed = files.write_targets(inventory)
        if changed:
            log.info("targets have changed: %s", ", ".join(changed))
        if self._monitoring["prometheus"] == "in-band" and not self.given_up:
            node = next((n for n in inventory["nodes"] if n["name"] == self._monitoring["node"]), None)
            if node is not None and node["pid"] and node["pid"] != self._started_in:
                log.info("%s is another process now: prometheus is started in it", node["name"])
                self.stop()
                self.start()

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait(10.0)
        self._process = None

    def _tail(self, lines: int = 6) -> str:
        try:
            found = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "(no log)"
        # Before it panics it says why; the stack that follows helps nobody.
        reasons = [line for line in found if "err=" in line or "level=error" in line]
        return "\n".join((reasons or found)[-lines:])
