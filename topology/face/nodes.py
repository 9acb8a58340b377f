"""What every node is as scripts hold it in their hands: interfaces, a shell, programs, addresses.

A node is made before the network runs and gets its process when it starts; until then commands are refused. What kind
of process that is, and where a command runs, is said by `hosts` and `devices`. Nothing of Mininet's is started: no
`mnexec`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mininet.log import debug, info

from topology.engine import namespaces
from topology.errors import TopologyError
from topology.face.arguments import NotHonoured
from topology.face.interfaces import Intf
from topology.face.shell import SENTINEL, Shell

if TYPE_CHECKING:
    from topology.face.network import Mininet

_RUN_TIMEOUT_S = 30.0
_POPEN_OPTIONS = ("text", "universal_newlines", "encoding", "errors", "bufsize", "close_fds", "pass_fds")


class Node:
    """What hosts, switches and controllers share: interfaces, a shell, programs."""

    portBase = 0
    outToNode: ClassVar[dict[int, Node]] = {}

    def __init__(self, name: str, inNamespace: bool = True, **params: Any) -> None:
        self.name = name
        self.inNamespace = inNamespace
        self.params = params
        self.net: Mininet | None = None
        self.intfs: dict[int, Intf] = {}
        self.ports: dict[Intf, int] = {}
        self.nameToIntf: dict[str, Intf] = {}
        self.shell: Shell | None = None
        self.waiting = False
        self.readbuf = ""
        self.lastCmd: str | None = None
        self.lastPid: int | None = None
        self.execed = False

    # The network that it belongs to

    def net_of(self, call: str) -> Mininet:
        """The network. Raises NotHonoured where it belongs to none."""
        if self.net is None:
            raise NotHonoured(f"{call}: {self.name!r} belongs to no network; add it to one")
        return self.net

    def running(self, call: str) -> Mininet:
        """The network, which runs. Raises NotHonoured before its start and after its end."""
        net = self.net_of(call)
        if net.inventory is None:
            raise NotHonoured(f"{call}: {self.name!r} does not run; the network is made by net.start()")
        return net

    def network_namespace(self) -> Path:
        """The network namespace in which its interfaces are."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The host's number of its first process; None while it does not run."""
        return None

    # Interfaces

    def newPort(self) -> int:
        """The next free port number."""
        return max(self.ports.values()) + 1 if self.ports else self.portBase

    def addIntf(self, intf: Intf, port: int | None = None) -> None:
        """Note an interface that a link brings."""
        number = self.newPort() if port is None else port
        self.intfs[number] = intf
        self.ports[intf] = number
        self.nameToIntf[intf.name] = intf

    def delIntf(self, intf: Intf) -> None:
        """Forget an interface."""
        number = self.ports.pop(intf, None)
        if number is not None:
            del self.intfs[number], self.nameToIntf[intf.name]

    def defaultIntf(self) -> Intf | None:
        """The interface of the lowest port."""
        return self.intfs[min(self.intfs)] if self.intfs else None

    def intf(self, intf: str | Intf | None = None) -> Intf:
        """An interface by name; the default one without. Raises NotHonoured where there is none."""
        found = self.nameToIntf.get(intf) if isinstance(intf, str) and intf else intf or self.defaultIntf()
        if not isinstance(found, Intf):
            names = ", ".join(self.nameToIntf) or "none yet: add a link"
            raise NotHonoured(f"{self.name}.intf({intf!r}): its interfaces: {names}")
        return found

    def intfList(self) -> list[Intf]:
        """Interfaces in the order of their ports."""
        return [self.intfs[port] for port in sorted(self.intfs)]

    def intfNames(self) -> list[str]:
        """Their names."""
        return [intf.name for intf in self.intfList()]

    def connectionsTo(self, node: Node) -> list[tuple[Intf, Intf]]:
        """Pairs of own and other interface of all links to that node."""
        found = []
        for intf in self.intfList():
            if intf.link is not None:
                other = intf.link.intf2 if intf.link.intf1 is intf else intf.link.intf1
                if other.node is node:
                    found.append((intf, other))
        return found

    def IP(self, intf: str | Intf | None = None) -> str | None:
        """IPv4 address of an interface, or of the default one."""
        return self.intf(intf).IP()

    def MAC(self, intf: str | Intf | None = None) -> str | None:
        """Hardware address of an interface, or of the default one."""
        return self.intf(intf).MAC()

    def setIP(self, ip: str, prefixLen: int = 8, intf: str | Intf | None = None) -> None:
        """Give an interface another IPv4 address."""
        self.intf(intf).setIP(ip, prefixLen)

    def setMAC(self, mac: str, intf: str | Intf | None = None) -> None:
        """Give an interface another hardware address."""
        self.intf(intf).setMAC(mac)

    def intfIsUp(self, intf: str | Intf | None = None) -> bool:
        """Whether an interface is up."""
        return self.intf(intf).isUp()

    def run_ip(self, *words: str) -> str:
        """The host's own `ip` in the node's network namespace (the image needs none). Raises TopologyError."""
        done = self.run_outside(["ip", *words])
        if done.returncode:
            raise TopologyError(f"{self.name}: `ip {' '.join(words)}` failed: {done.stderr.strip()}")
        return done.stdout

    def run_outside(self, argv: Sequence[str], timeout_s: float = _RUN_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """A program of the host in the node's network namespace, to its end. Raises TopologyError on a time-out."""
        self.running(f"{self.name}: {argv[0]}")

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(list(argv), capture_output=True, text=True, timeout=timeout_s, check=False,
                                  stdin=subprocess.DEVNULL)  # fmt: skip

        try:
            return namespaces.inside(self.network_namespace(), run)
        except FileNotFoundError as error:
            raise TopologyError(f"{self.name}: `{argv[0]}`: {error.filename or argv[0]} is not there") from error
        except subprocess.TimeoutExpired as error:
            raise TopologyError(f"{self.name}: `{' '.join(argv)}` did not end in {timeout_s:g} s") from error

    # Commands

    def _start_shell(self, terminal: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def startShell(self) -> None:
        """Start the shell that `cmd` talks to; the first `cmd` does so by itself."""
        self.running(f"{self.name}.cmd()")
        if self.shell is not None and self.shell.ended:
            self._drop_shell()
        if self.shell is None:
            self.shell = Shell(self.name, self._start_shell)
            self.outToNode[self.shell.file.fileno()] = self
            self.readbuf, self.waiting = "", False

    def _drop_shell(self) -> None:
        if self.shell is not None:
            if not self.shell.file.closed:
                self.outToNode.pop(self.shell.file.fileno(), None)
            self.shell.close()
        self.shell, self.waiting, self.readbuf = None, False, ""

    @property
    def stdout(self) -> Any:
        """The shell's terminal, for `poll`."""
        self.startShell()
        assert self.shell is not None
        return self.shell.file

    stdin = stdout

    @classmethod
    def fdToNode(cls, fd: int) -> Node | None:
        """The node whose shell has that file descriptor."""
        return cls.outToNode.get(fd)

    def read(self, size: int = 1024) -> str:
        """Up to so many characters of output, waiting for at least one."""
        assert self.shell is not None
        if not self.readbuf or (len(self.readbuf) < size and self.shell.readable(0)):
            self.readbuf += self.shell.read(size - len(self.readbuf))
        result, self.readbuf = self.readbuf[:size], self.readbuf[size:]
        return result

    def readline(self) -> str | None:
        """One line without its end, None where no whole line is there; waits where nothing is there at all."""
        assert self.shell is not None
        if "\n" not in self.readbuf and (not self.readbuf or self.shell.readable(0)):
            self.readbuf += self.shell.read(1024)
        if "\n" not in self.readbuf:
            return None
        line, _, self.readbuf = self.readbuf.partition("\n")
        return line

    def write(self, data: str) -> None:
        """Write to the shell."""
        self.startShell()
        assert self.shell is not None
        self.shell.write(data)

    def sendCmd(self, *args: Any, printPid: bool = False, **kwargs: Any) -> None:
        """Begin a command in the shell; `monitor` or `waitOutput` read what it says. Raises TopologyError."""
        if kwargs:
            raise NotHonoured(f"{self.name}.sendCmd(): {', '.join(kwargs)} is not honoured")
        self.startShell()
        if self.waiting:
            raise TopologyError(f"{self.name}: `{self.lastCmd}` still runs; read its end with waitOutput() first")
        words = args[0] if len(args) == 1 and isinstance(args[0], list) else args
        command = " ".join(str(word) for word in words)
        self.lastCmd = command
        if not re.search(r"\w", command):
            command = "true"
        if command.rstrip().endswith("&") and not command.rstrip().endswith("&&"):
            command += ' printf "\\001%d\\n" $!'  # its pid within the node
        elif printPid:
            command = f'{{ printf "\\001%d\\n" $$; {command}\n}}'
        self.lastPid = None
        self.waiting = True
        self.write(command + "\n")

    def sendInt(self, intr: str = chr(3)) -> None:
        """Interrupt what runs in the shell."""
        self.write(intr)

    def waitReadable(self, timeoutms: float | None = None) -> bool:
        """Wait until there is output."""
        assert self.shell is not None
        return bool(self.readbuf) or self.shell.readable(timeoutms)

    def monitor(self, timeoutms: float | None = None, findPid: bool = True) -> str:
        """Output of the running command; `waiting` is False once it has ended."""
        assert self.shell is not None, f"{self.name} runs no command"
        if not self.waitReadable(timeoutms):
            return ""
        data = self.read(1024)
        if findPid and chr(1) in data:
            while not re.search("\x01\\d+\r?\n", data) and not self.shell.ended:
                data += self.read(1024)
            found = re.search("\x01(\\d+)\r?\n", data)
            if found:
                self.lastPid = int(found.group(1))
                data = re.sub(r"\[\d+\] \d+\r?\n", "", data.replace(found.group(0), ""))
        if SENTINEL in data or self.shell.ended:
            self.waiting = False
            data = data.replace(SENTINEL, "")
        return data

    def waitOutput(self, verbose: bool = False, findPid: bool = True) -> str:
        """All output of the running command, to its end."""
        output = ""
        while self.waiting:
            data = self.monitor(findPid=findPid)
            output += data
            (info if verbose else debug)(data)
        return output

    def cmd(self, *args: Any, verbose: bool = False, **kwargs: Any) -> str:
        """Run a command in the node's shell and give its output (standard and error output; lines end in CR LF)."""
        debug(f"*** {self.name} : {args}\n")
        self.sendCmd(*args, **kwargs)
        output = self.waitOutput(verbose)
        # What bash itself says of a job in the background may come before its pid, and then stands in the output.
        return re.sub(rf"\[\d+\] {self.lastPid}\r?\n", "", output, count=1) if self.lastPid else output

    def cmdPrint(self, *args: Any) -> str:
        """`cmd` with its output shown."""
        return self.cmd(*args, verbose=True)

    def _spawn(
        self, argv: Sequence[str], *, stdin: Any = None, stdout: Any = None, stderr: Any = None,
        env: Mapping[str, str] | None = None, cwd: str | None = None, options: Mapping[str, Any] | None = None,
        terminal: bool = False,
    ) -> subprocess.Popen[Any]:  # fmt: skip
        raise NotImplementedError

    def popen(self, *args: Any, shell: bool = False, **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program in the node: a list, words, or one string (split at blanks, or given to `sh` with `shell`).

        Takes Popen's stdin, stdout, stderr, env, cwd, text, encoding and the like; others are refused.
        """
        self.running(f"{self.name}.popen()")
        if len(args) == 1 and isinstance(args[0], (list, tuple)):
            argv = [str(word) for word in args[0]]
        elif len(args) == 1 and isinstance(args[0], str):
            argv = [args[0]] if shell else args[0].split()
        else:
            argv = [str(word) for word in args]
        if not argv:
            raise NotHonoured(f"{self.name}.popen(): name a program")
        if shell:
            argv = ["sh", "-c", " ".join(argv)]
        settings = {"stdin": None, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
        own = {key: settings.pop(key) for key in ("stdin", "stdout", "stderr", "env", "cwd") if key in settings}
        for key, value in settings.items():
            if key not in _POPEN_OPTIONS:
                raise NotHonoured(f"{self.name}.popen(): {key}={value!r} is not honoured")
        try:
            return self._spawn(argv, **own, options=settings)
        except OSError as error:
            raise TopologyError(f"{self.name}: `{argv[0]}` cannot be started: {error.strerror}") from error

    def pexec(self, *args: Any, **kwargs: Any) -> tuple[str, str, int]:
        """Run a program in the node to its end: output, error output, exit status."""
        process = self.popen(*args, stdin=subprocess.PIPE, text=True, **kwargs)
        output, errors = process.communicate()
        return output, errors, process.returncode

    def terminate(self) -> None:
        """End its shell; the node itself goes with the network."""
        self._drop_shell()

    def stop(self, deleteIntfs: bool = False) -> None:
        """End its shell."""
        self.terminate()

    def __repr__(self) -> str:
        intfs = ",".join(f"{intf.name}:{intf.IP()}" for intf in self.intfList())
        return f"<{type(self).__name__} {self.name}: {intfs} pid={self.pid}> "

    def __str__(self) -> str:
        return self.name
