"""One node as a Docker container: what is asked of the daemon for it, how it is made, and found again by its labels.

Takes a planned node and a client of the daemon; errors of Docker are let through, `failure` puts them into words.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException
from docker.types import LogConfig

from topology import cgroup_mounts
from topology.docker_images import ImageFacts, explanation
from topology.errors import TopologyError
from topology.inventory import NodeFacts
from topology.plan import Plan, PlannedNode

TESTBED_LABEL = "cohortnet.testbed"
NODE_LABEL = "cohortnet.node"

PIDS_LIMIT = 4096
CPU_PERIOD_US = 100_000
IDLE_COMMAND = ["sleep", "infinity"]
"""For a node without program on an image without command: it stands idle, as in the namespace runtime."""
LOGS = LogConfig(type=LogConfig.types.JSON, config={"max-size": "16m", "max-file": "2"})
_ENDS_WITHIN_S = 5.0


def limits(cpu: float | None, memory_bytes: int | None, cpuset: str | None) -> dict[str, Any]:
    """Limits in Docker's words, to make a container with or to change one; None sets nothing. `cpu` in cores. Pure."""
    words: dict[str, Any] = {}
    if cpu is not None:
        # A quota and not `nano_cpus`: one made with the latter takes no other limit while it runs.
        words |= {"cpu_period": CPU_PERIOD_US, "cpu_quota": max(1000, round(cpu * CPU_PERIOD_US))}
    if memory_bytes is not None:
        # Swap would turn a limit into a slow node.
        words |= {"mem_limit": memory_bytes, "memswap_limit": memory_bytes}
    if cpuset is not None:
        words["cpuset_cpus"] = cpuset
    return words


def container_options(plan: Plan, node: PlannedNode, image: ImageFacts, hosts: Mapping[str, str]) -> dict[str, Any]:
    """What is asked of Docker for one node: arguments of `create_container`, under "host" of its host config.

    What the node's own options say comes last, and stands. Pure.
    """
    create: dict[str, Any] = dict(node.options.get("create", {}))
    host: dict[str, Any] = dict(node.options.get("host", {}))
    command: list[str] | None = None if node.program is None else list(node.program)
    if command is None and not image.has_command:
        command = IDLE_COMMAND
    return {
        "image": image.name,
        "command": command,
        "name": node.container,
        "hostname": node.name,
        # An image's own shell or interpreter as its command ends at once when its input is closed.
        "stdin_open": node.program is None,
        "environment": dict(node.environment),
        "labels": {TESTBED_LABEL: plan.testbed, NODE_LABEL: node.name},
        "host": {
            "network_mode": "none",
            "init": True,
            "binds": [f"{plan.shared}:{plan.shared}:ro", f"{node.state}:{node.state}:rw", *host.pop("binds", [])],
            "extra_hosts": dict(hosts),
            "log_config": LOGS,
            "restart_policy": {"Name": "no"},
            "pids_limit": PIDS_LIMIT,
            **limits(node.cpu, node.memory_bytes, node.cpuset),
            **host,
        },
        **create,
    }


def make_folder(node: PlannedNode, image: ImageFacts) -> None:
    """The node's state folder, before it is bound: Docker binds nothing that is not there."""
    folder = Path(node.state)
    folder.mkdir(parents=True, exist_ok=True)
    if image.user.split(":")[0] not in ("", "0", "root"):
        # Only root comes this far on the host; in the container it is the image's own user who has
        # to write here.
        folder.chmod(0o777)


def make(
    client: docker.APIClient,
    node: PlannedNode,
    options: Mapping[str, Any],
    hierarchies: Sequence[cgroup_mounts.CgroupMount],
) -> NodeFacts:
    """Make and start one container with these `options` (of `container_options`); gives its pid and cgroups."""
    arguments = {key: value for key, value in options.items() if key != "host"}
    identity = str(
        client.create_container(**arguments, detach=True, host_config=client.create_host_config(**options["host"]))[
            "Id"
        ]
    )
    client.start(identity)
    return facts(client, identity, hierarchies)


def facts(client: docker.APIClient, identity: str, hierarchies: Sequence[cgroup_mounts.CgroupMount]) -> NodeFacts:
    """Pid and cgroup folders of a running container. Raises DockerException where it has ended."""
    pid = int(client.inspect_container(identity)["State"]["Pid"])
    try:
        folders = cgroup_mounts.folders_of(pid, hierarchies)
    except OSError as error:
        raise ended_at_once(client, identity) from error
    return NodeFacts(pid=pid, cgroups=tuple(str(folder) for folder in folders), container_id=identity)


def ended_at_once(client: docker.APIClient, identity: str) -> DockerException:
    """What to say of a container whose program ended: its status and the last of its output."""
    # The daemon hears of an end a moment after it; until then it says that the process is running.
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while (state := client.inspect_container(identity)["State"])["Running"]:
        if time.monotonic() > deadline:
            return DockerException(f"its process {state['Pid']} is not among this machine's processes")
        time.sleep(0.1)
    said = client.logs(identity, stdout=True, stderr=True, tail=5).decode(errors="replace").strip()
    return DockerException(f"its command ended at once with status {state['ExitCode']}: {said[-400:] or 'no output'}")


def failure(plan: Plan, node: PlannedNode, error: Exception) -> TopologyError:
    """What Docker said of one node, with the node named, and what to type where its name is taken."""
    where = f"node {node.name!r} (container {node.container!r}, image {node.image!r})"
    if isinstance(error, APIError) and error.status_code == 409:
        return TopologyError(
            f"{where}: the name is taken: {explanation(error)}\n    -> `docker rm -f {node.container}` "
            "where it is not "
            f"needed, `cohortnet down {plan.testbed}` where it is a leftover, or another `container_prefix:`"
        )
    return TopologyError(f"{where}: {explanation(error)}")


def of_testbed(client: docker.APIClient, testbed: str, node: str | None = None) -> dict[str, str]:
    """Names by id of the containers of a testbed, or of one of its nodes, in whatever state."""
    labels = [f"{TESTBED_LABEL}={testbed}", *([f"{NODE_LABEL}={node}"] if node else [])]
    found = client.containers(all=True, filters={"label": labels})
    return {str(item["Id"]): (item["Names"] or [item["Id"][:12]])[0].lstrip("/") for item in found}
