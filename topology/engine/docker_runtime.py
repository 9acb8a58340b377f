"""Nodes as Docker containers, one a node, without any network of Docker's.

Owns what this project asks of the Docker daemon: making, starting, finding and removing containers. Takes
planned nodes, gives back pids and cgroup folders. A container keeps its image's entry point; limits are set
through Docker; interfaces, addresses and links are given from outside by the engine. Containers are found
again by the label `cohortnet.testbed`, never by a list kept somewhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from topology import cgroup_mounts
from topology.docker_images import (
    ImageFacts,
    explanation,
    image_facts,
    missing_image,
)
from topology.engine import docker_checks, docker_containers
from topology.engine.runtime import Progress
from topology.errors import Problem, TopologyError
from topology.finding import some
from topology.inventory import NodeFacts
from topology.plan import Plan, PlannedNode

WORKERS = 12
"""Containers made at a time: on an idle machine the daemon is the limit from four on, on a busy one a dozen keep it at
work (50 containers under load: 8.2 to 13.8 s with 6, 4.3 to 7.4 s with 12, `docker run` 5.0 to 9.8 s).
"""
REMOVERS = 32
"""Containers removed at a time: most of a removal is waiting (50 containers: 1.7 s with 12, 1.3 s with 32)."""
QUICK_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 120.0
"""One call that makes, starts or removes a container; a loaded machine takes seconds for one."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class DockerRuntime:
    """The runtime `docker`. `base_url` is the daemon's socket: by default DOCKER_HOST, else Docker's own."""

    name = "docker"

    def __init__(self, base_url: str | None = None, workers: int = WORKERS) -> None:
        self._base_url = base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        self._workers = workers
        self._removers = max(workers, REMOVERS)

    def check(self, plan: Plan) -> list[Problem]:
        """What stands against this plan: the daemon, images, what they lack, limits, names that are taken."""
        problems = docker_checks.check_limits(plan)
        try:
            with self._client(QUICK_TIMEOUT_S) as client:
                client.ping()
                taken = docker_checks.taken_names(client, plan)
            with self._client(CALL_TIMEOUT_S) as client:
                return problems + docker_checks.check_images(client, plan) + taken
        except TopologyError as error:
            return [*problems, Problem("runtime", "no-docker", str(error), self._start_hint())]
        except (DockerException, requests.RequestException) as error:
            return [
                *problems,
                Problem(
                    "runtime",
                    "docker-failed",
                    f"Docker: {explanation(error)}",
                    "`docker info` says more; `--runtime namespace` needs no Docker",
                ),
            ]

    def create(self, plan: Plan, nodes: Sequence[PlannedNode], progress: Progress) -> dict[str, NodeFacts]:
        """Make and start one container a node, and find their pids and cgroups.

        Raises:
            TopologyError: naming node, image and Docker's message. What was made until then stays, with its
                label, for `remove`.
        """
        plan.shared.mkdir(parents=True, exist_ok=True)
        hosts = {node.name: node.address for node in plan.nodes if node.address}
        hierarchies = cgroup_mounts.mounts()
        with self._client(CALL_TIMEOUT_S) as client:
            images = {image: self._image(client, image) for image in dict.fromkeys(n.image for n in nodes)}

            def make(node: PlannedNode) -> tuple[str, NodeFacts]:
                options = docker_containers.container_options(plan, node, images[node.image], hosts)
                try:
                    docker_containers.make_folder(node, images[node.image])
                    return node.name, docker_containers.make(client, node, options, hierarchies)
                except (DockerException, requests.RequestException, OSError) as error:
                    raise docker_containers.failure(plan, node, error) from error

            facts = dict(self._in_parallel("containers", nodes, make, progress, self._workers))
            # A program that cannot work ends within its first moments, and its network namespace with it.
            for node in nodes:
                found = facts[node.name]
                if found.container_id and not Path(f"/proc/{found.pid}").exists():
                    try:
                        raise docker_containers.ended_at_once(client, found.container_id)
                    except (DockerException, requests.RequestException) as error:
                        raise docker_containers.failure(plan, node, error) from error
            return facts

    def remove(self, testbed: str, state: Path, progress: Progress) -> list[str]:
        """Remove every container with the testbed's label, in whatever state, and wait until all are gone.

        Raises:
            TopologyError: where containers stay, or where the daemon does not answer though the testbed has
                containers.
        """
        try:
            with self._client(QUICK_TIMEOUT_S) as client:
                client.ping()
        except (TopologyError, DockerException, requests.RequestException) as error:
            if not _has_containers(state):
                return []
            raise TopologyError(
                f"testbed {testbed!r} has containers, and {explanation(error)}: its containers may "
                f"still be there; {self._start_hint(other_runtime=False)}, then `cohortnet down {testbed}`"
            ) from error
        removed: dict[str, str] = {}
        with self._client(CALL_TIMEOUT_S) as client:
            try:
                left = self._remove_all(client, testbed, removed, progress)
            except (DockerException, requests.RequestException) as error:
                raise TopologyError(
                    f"testbed {testbed!r}: Docker removed {len(removed)} containers, then failed: "
                    f"{explanation(error)}; repeat `cohortnet down {testbed}`"
                ) from error
        if left:
            raise TopologyError(
                f"testbed {testbed!r}: Docker does not let go of {some(left)}; restart the daemon, then "
                f"`cohortnet down {testbed}`"
            )
        return sorted(removed.values())

    def remove_node(self, testbed: str, node: str) -> None:
        """Remove the container of one node. Raises TopologyError with Docker's words."""
        try:
            with self._client(CALL_TIMEOUT_S) as client:
                for key in docker_containers.of_testbed(client, testbed, node):
                    with suppress(NotFound):
                        client.remove_container(key, force=True, v=True)
        except (DockerException, requests.RequestException) as error:
            raise TopologyError(f"node {node!r}: Docker does not remove it: {explanation(error)}") from error

    def limit(self, node: str, container: str, changes: Mapping[str, Any]) -> None:
        """Change limits of a running container: arguments of docker-py's `update_container`. Raises TopologyError."""
        self._asked(node, "change its limits", lambda client: client.update_container(container, **changes))

    def pause(self, node: str, container: str) -> None:
        """Stop all processes of a container where they stand. Raises TopologyError."""
        self._asked(node, "pause it", lambda client: client.pause(container))

    def resume(self, node: str, container: str) -> None:
        """Let a paused container go on. Raises TopologyError."""
        self._asked(node, "let it go on", lambda client: client.unpause(container))

    def restart(self, node: str, container: str) -> NodeFacts:
        """End a container's program and start it again; its network namespace is another one then, and empty.

        Raises:
            TopologyError: with Docker's words, or the program's where it ended at once.
        """

        def work(client: docker.APIClient) -> NodeFacts:
            client.restart(container, timeout=5)
            return docker_containers.facts(client, container, cgroup_mounts.mounts())

        return self._asked(node, "begin it anew", work)

    def _asked(self, node: str, what: str, work: Callable[[docker.APIClient], Result]) -> Result:
        try:
            with self._client(CALL_TIMEOUT_S) as client:
                return work(client)
        except (DockerException, requests.RequestException) as error:
            raise TopologyError(f"node {node!r}: Docker does not {what}: {explanation(error)}") from error

    def _remove_all(
        self, client: docker.APIClient, testbed: str, removed: dict[str, str], progress: Progress
    ) -> list[str]:
        # Twice nothing, not once: a creation that was under way when its caller was killed appears later.
        deadline = time.monotonic() + 30.0
        reasons: dict[str, str] = {}
        empty = False
        while True:
            found = docker_containers.of_testbed(client, testbed)
            if not found and empty:
                return []
            empty = not found
            if time.monotonic() > deadline:
                return sorted(f"{name}{reasons.get(key, '')}" for key, name in found.items())
            if empty:
                time.sleep(0.15)
                continue
            fresh = [key for key in found if key not in removed]
            removed.update(found)

            def drop(key: str) -> None:
                try:
                    client.remove_container(key, force=True, v=True)
                except NotFound:
                    return
                except APIError as error:
                    # 409: somebody (or our own last call) is removing it already. 5xx:
                    # tried again until the deadline.
                    reasons[key] = f" ({explanation(error)})"

            self._in_parallel("containers removed", list(found), drop, progress, self._removers)
            if fresh:
                # Many containers take long honestly; the deadline is for those that do not go.
                deadline = time.monotonic() + 30.0
            else:
                time.sleep(0.2)

    @contextmanager
    def _client(self, timeout_s: float) -> Iterator[docker.APIClient]:
        if not self._base_url.startswith("unix://"):
            raise TopologyError(
                f"the Docker daemon at {self._base_url} (DOCKER_HOST) is not reached by a socket of this "
                "machine, so its containers cannot be wired here"
            )
        path = self._base_url.removeprefix("unix://")
        try:
            client = docker.APIClient(base_url=self._base_url, timeout=timeout_s, max_pool_size=self._removers)
        except (DockerException, requests.RequestException) as error:
            if not os.path.exists(path):
                reason = f"there is no socket {path}"
            elif not os.access(path, os.R_OK | os.W_OK):
                reason = f"{path} may not be used by this user"
            else:
                reason = f"nobody answers on {path}"
            raise TopologyError(f"the Docker daemon does not answer ({reason})") from error
        try:
            yield client
        finally:
            client.close()

    def _start_hint(self, *, other_runtime: bool = True) -> str:
        if not self._base_url.startswith("unix://"):
            return "unset DOCKER_HOST" + (", or choose `--runtime namespace`" if other_runtime else "")
        hint = "start it: `sudo systemctl start docker` (without systemd: `sudo dockerd &`)"
        return hint + (", or choose `--runtime namespace`" if other_runtime else "")

    @staticmethod
    def _image(client: docker.APIClient, image: str) -> ImageFacts:
        try:
            return image_facts(client, image)
        except ImageNotFound:
            raise TopologyError(str(missing_image(image))) from None
        except (DockerException, requests.RequestException) as error:
            raise TopologyError(f"image {image!r}: {explanation(error)}") from error

    @staticmethod
    def _in_parallel(
        step: str, items: Sequence[Item], work: Callable[[Item], Result], progress: Progress, workers: int
    ) -> list[Result]:
        """All results, in any order. A failure stops what has not begun; it is raised once the rest ended."""
        results = []
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="docker") as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    results.append(future.result())
                    progress(step, done, len(items))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return results


def _has_containers(state: Path) -> bool:
    # Whatever was written down before the daemon went away; a state that cannot be read tells nothing.
    if (state / "containers").exists():
        return True
    for path in (state / "plan.json", state / "state.json", state / "shared" / "inventory.json"):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        plan = data.get("plan") if isinstance(data, dict) else None
        for level in (data, plan):
            if isinstance(level, dict) and "runtime" in level:
                return bool(level["runtime"] == "docker")
    return False
