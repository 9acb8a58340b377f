"""Does anything ever stay? Rounds of up, `kill -9` at a random moment, down, and a look at the host. Root.

    sudo .venv/bin/python benchmarks/soak.py                              a hundred rounds, namespace runtime
    sudo .venv/bin/python benchmarks/soak.py --runtime docker --rounds 20
    sudo .venv/bin/python benchmarks/soak.py --whole --rounds 10          with the nodes' programs, by the command line

A round's moment is drawn (`--seed`) from three: while the testbed is raised, when it is up, while it is taken down.
The process that raises (or removes) it is killed alone, as a user's terminal would be: what it had started lives on.
Then another process takes it down, and the host is searched with its own tools and /proc, not with the engine's code:
processes, by control group, by command line and by what they have mounted; network namespaces, links, mounts, control
groups, containers, nftables, the testbed's folder and lock, and the settings of the machine. Ends with status 1 where
anything is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PHASES = ("raised", "up", "taken down")
SETTINGS = ("net/core/rmem_default", "net/core/wmem_default", "net/core/rmem_max", "net/ipv4/ip_forward",
            "net/ipv6/conf/default/disable_ipv6")  # fmt: skip
BEGUN, UP, IS_UP = "begun", "up", "is up"
"""What the processes say: ours when they begin and when it is up, and what topo.py has in its line then."""
_END_S = 300.0


def testbed(arguments: argparse.Namespace) -> dict[str, Any]:
    """A small factory-satellite testbed file."""
    from topology.capabilities import capabilities

    return {
        "name": arguments.name, "runtime": arguments.runtime, "publish": [], "container_prefix": f"{arguments.name}.",
        "preset": {"cohorts": 1, "clients": arguments.clients},
        "controller": {"kind": "none"} if arguments.network else {"rest_host_port": free_port()},
        "allow_unsupported": [] if capabilities().netem else ["delay"],
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raise_it(data: dict[str, Any]) -> None:
    """The process that is killed while it raises, or when it has."""
    from topology.engine import engine
    from topology.model import parse_testbed
    from topology.planning import make_plan

    plan = make_plan(parse_testbed(data))
    print(BEGUN, flush=True)
    engine.raise_testbed(plan)
    print(UP, flush=True)
    time.sleep(_END_S)


def take_down(name: str) -> None:
    """The process that removes it."""
    from topology.engine import engine

    print(BEGUN, flush=True)
    engine.remove_testbed(name)


class Program:
    """One of the two processes, and what it says."""

    def __init__(self, command: Sequence[str], text: str = "") -> None:
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True)  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(text)
        self._process.stdin.close()
        self.said: list[str] = []

    def wait_for(self, words: str) -> float:
        """Seconds until it says that. Raises SystemExit where it ends without."""
        assert self._process.stdout is not None
        start = time.monotonic()
        for line in self._process.stdout:
            self.said.append(line.rstrip())
            if line.strip() == words or (words == IS_UP and words in line):
                return time.monotonic() - start
        raise SystemExit(f"{self._process.args!r} ended with {self._process.wait()}: {self.said[-15:]}")

    def wait(self) -> None:
        """Until it has ended by itself. Raises SystemExit where it failed."""
        assert self._process.stdout is not None
        self.said += self._process.stdout.read().splitlines()
        if self._process.wait(timeout=_END_S):
            raise SystemExit(f"{self._process.args!r} ended with {self._process.returncode}: {self.said[-15:]}")

    def kill(self) -> bool:
        """`kill -9`; whether it still ran."""
        ran = self._process.poll() is None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return ran


class Soak:
    """The rounds of one start of this program."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.chance = random.Random(arguments.seed)
        self.up_s = self.down_s = 0.0
        self.settings = settings()
        import topology.engine.engine  # noqa: F401  (before any time is taken)

    def raiser(self) -> Program:
        """A process that has begun to raise the testbed."""
        a = self.arguments
        if a.whole:
            from topology.capabilities import capabilities

            options = [] if capabilities().netem else ["--allow-unsupported", "delay"]
            command = [sys.executable, str(ROOT / "topo.py"), "1", "--clients", str(a.clients), "--name", a.name,
                       "--runtime", a.runtime, "--runs", str(ROOT / "build" / "soak-runs"), *options]  # fmt: skip
            return Program(command)  # its first second is Python's own start: a moment like any other
        program = Program([sys.executable, __file__, "--worker", "raise"], json.dumps(testbed(a)))
        program.wait_for(BEGUN)
        return program

    def remover(self) -> Program:
        """A process that has begun to take it down."""
        if self.arguments.whole:
            return Program([sys.executable, "-m", "cohortnet", "down", self.arguments.name])
        program = Program([sys.executable, __file__, "--worker", "down", "--name", self.arguments.name])
        program.wait_for(BEGUN)
        return program

    def calibrate(self) -> list[str]:
        """How long it takes here to raise it and to take it down when nobody disturbs; also the first look."""
        start = time.monotonic()
        program = self.raiser()
        began = start if self.arguments.whole else time.monotonic()
        program.wait_for(IS_UP if self.arguments.whole else UP)
        self.up_s = time.monotonic() - began
        if not traces(self.arguments.name):
            raise SystemExit("the testbed is up, and the look at the host found nothing of it: it is blind")
        program.kill()
        start = time.monotonic()
        refused = self.down()
        self.down_s = time.monotonic() - start
        return refused + self.found()

    def round(self) -> tuple[str, list[str]]:
        """One round: what was done, and what is left."""
        phase = self.chance.choice(PHASES)
        share = self.chance.random()
        program = self.raiser()
        if phase == "raised":
            moment = share * self.up_s
            time.sleep(moment)
        else:
            program.wait_for(IS_UP if self.arguments.whole else UP)
            moment = share * 0.5 if phase == "up" else 0.0
            time.sleep(moment)
        program.kill()
        if phase == "taken down":
            remover = self.remover()
            moment = share * self.down_s
            time.sleep(moment)
            if not remover.kill():
                phase += " (it was through)"
        begun = time.monotonic()
        refused = self.down()
        return f"killed {moment:5.2f} s into being {phase}; down in {time.monotonic() - begun:.2f} s", (
            refused + self.found()
        )

    def down(self) -> list[str]:
        """Take the testbed down to the end; what would not go."""
        if self.arguments.whole:
            self.remover().wait()
            return []
        from topology.engine import engine

        return [f"refused: {text}" for text in engine.remove_testbed(self.arguments.name).left]

    def found(self) -> list[str]:
        """What is left. What was killed takes a moment to go, so this looks again for ten seconds."""
        deadline = time.monotonic() + 10.0
        while (found := traces(self.arguments.name)) and time.monotonic() < deadline:
            time.sleep(0.2)
        changed = [f"setting {key}: {value}, was {self.settings[key]}" for key, value in settings().items()
                   if value != self.settings[key]]  # fmt: skip
        return found + changed


def settings() -> dict[str, str]:
    """The machine's own settings that a testbed has no business to change."""
    return {key: Path("/proc/sys", key).read_text(encoding="ascii").strip() for key in SETTINGS}


def traces(name: str) -> list[str]:
    """Everything of that testbed on this host."""
    from tests.system.leftovers import leftovers

    found = leftovers(name) + mounted(name)
    lock = Path("/run/cohortnet", f".{name}.lock")
    found += [f"lock {lock}"] if lock.exists() else []
    if shutil.which("nft"):
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=30, check=True)
        found += [f"nftables: {line}" for line in done.stdout.splitlines() if "cohortnet" in line]
    return found


def mounted(name: str) -> list[str]:
    """Mounts of the testbed's files in any mount namespace of the machine, with a process that lives there."""
    seen: set[str] = set()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            space = os.readlink(folder / "ns" / "mnt")
            if space in seen:
                continue
            lines = (folder / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # it has ended
            continue
        seen.add(space)
        found += [f"mount {line.split()[4]} in process {folder.name}" for line in lines
                  if f"/cohortnet/{name}/" in line or f"/cn.{name} " in line]  # fmt: skip
    return found


@dataclass(frozen=True)
class Kernel:
    """What the kernel itself holds, whoever it belongs to: for the eye, as others use this machine too."""

    namespaces: str

    @staticmethod
    def now() -> Kernel:
        """Network namespaces in the kernel's memory, those without any name too."""
        try:
            lines = Path("/proc/slabinfo").read_text(encoding="ascii").splitlines()
            return Kernel(next(line.split()[1] for line in lines if line.startswith("net_namespace ")))
        except (OSError, StopIteration):
            return Kernel("?")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--runtime", choices=("namespace", "docker"), default="namespace")
    parser.add_argument("--clients", type=int, default=4, help="of the one cohort (default 4)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="soak", help="the testbed's name (default soak)")
    parser.add_argument("--network", action="store_true", help="without our controller: three times as fast")
    parser.add_argument("--whole", action="store_true", help="through topo.py and `cohortnet down`, programs and all")
    parser.add_argument("--worker", choices=("raise", "down"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker == "raise":
        raise_it(json.load(sys.stdin))
        return 0
    if arguments.worker == "down":
        take_down(arguments.name)
        return 0
    if os.geteuid() != 0:
        parser.error("needs root")
    if arguments.rounds < 1 or arguments.clients < 2:
        parser.error("at least one round and two clients")
    if arguments.whole and arguments.network:
        parser.error("--whole has a controller; leave out --network")
    if before := traces(arguments.name):
        parser.error(f"there is something of {arguments.name!r} already ({before[0]}); `cohortnet down` it, or --name")
    soak, kernel, start, bad = Soak(arguments), Kernel.now(), time.monotonic(), 0
    try:
        left = soak.calibrate()
        said = "; ".join(left) or "nothing"
        print(f"undisturbed: up in {soak.up_s:.2f} s, down in {soak.down_s:.2f} s; left: {said}", flush=True)
        bad += bool(left)
        for number in range(1, arguments.rounds + 1):
            done, left = soak.round()
            print(f"{number:4} {done}; left: {'; '.join(left) or 'nothing'}", flush=True)
            bad += bool(left)
    finally:
        soak.down()
    took, after = time.monotonic() - start, Kernel.now()
    print(f"{arguments.rounds} rounds in {took:.0f} s, something left in {bad} of them; network namespaces in the "
          f"kernel before and after: {kernel.namespaces} and {after.namespaces}")  # fmt: skip
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
