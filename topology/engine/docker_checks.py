"""What stands against a plan before any container is made: names that are taken, images that lack something, limits
that Docker does not allow. Finds problems, changes nothing.
"""

from __future__ import annotations

import docker
from docker.errors import ImageNotFound

from topology.docker_images import image_facts, image_needs, lint_image, missing_image
from topology.engine.docker_containers import TESTBED_LABEL
from topology.errors import Problem
from topology.finding import some
from topology.plan import Plan

CHECK_LABEL = "cohortnet.check"
LEAST_MEMORY_BYTES = 6 * 2**20
LEAST_CPU = 0.01


def taken_names(client: docker.APIClient, plan: Plan) -> list[Problem]:
    """Wanted names that other containers have, and what is left of this testbed itself."""
    wanted = {node.container for node in plan.nodes}
    problems = []
    leftovers = []
    for item in client.containers(all=True):
        labels = item["Labels"] or {}
        names = {name.lstrip("/") for name in item["Names"] or ()} & wanted
        owner = labels.get(TESTBED_LABEL)
        if owner == plan.testbed and CHECK_LABEL not in labels:
            leftovers.append((item["Names"] or [item["Id"][:12]])[0].lstrip("/"))
            continue
        for name in sorted(names):
            if owner:
                problems.append(
                    Problem(
                        "container_prefix",
                        "name-taken",
                        f"the container name {name!r} belongs to testbed {owner!r}",
                        f"`cohortnet down {owner}`, or another `container_prefix:`",
                    )
                )
            else:
                problems.append(
                    Problem(
                        "container_prefix",
                        "name-taken",
                        f"a container that is not Cohortnet's has the name {name!r} (image "
                        f"{item['Image']}, {item['Status'].lower()})",
                        f"`docker rm -f {name}` where it is not needed, else another `container_prefix:`",
                    )
                )
    if leftovers:
        problems.append(
            Problem(
                "name",
                "already-there",
                f"testbed {plan.testbed!r} still has {len(leftovers)} containers here ({some(leftovers)})",
                f"`cohortnet down {plan.testbed}` removes them",
            )
        )
    return problems


def check_images(client: docker.APIClient, plan: Plan) -> list[Problem]:
    """Images that are missing, or lack what the nodes' programs and links need."""
    problems: list[Problem] = []
    for image in dict.fromkeys(node.image for node in plan.nodes):
        try:
            facts = image_facts(client, image)
        except ImageNotFound:
            problems.append(missing_image(image))
            continue
        programs = [n.program for n in plan.nodes if n.image == image and n.program and n.options.get("lint", True)]
        if programs:
            needs = image_needs(programs, has_entrypoint=facts.has_entrypoint)
            problems += lint_image(client, facts, needs, {TESTBED_LABEL: plan.testbed, CHECK_LABEL: plan.testbed})
    return problems


def check_limits(plan: Plan) -> list[Problem]:
    """Limits below what Docker allows."""
    problems = []
    small = [n for n in plan.nodes if n.memory_bytes is not None and n.memory_bytes < LEAST_MEMORY_BYTES]
    slow = [n for n in plan.nodes if n.cpu is not None and n.cpu < LEAST_CPU]
    if small:
        problems.append(
            Problem(
                "memory",
                "too-small",
                f"{some([n.name for n in small])}: {small[0].memory_bytes} bytes; Docker allows no less than 6 MiB",
                "raise `memory:`, or choose `--runtime namespace`",
            )
        )
    if slow:
        problems.append(
            Problem(
                "cpu",
                "too-small",
                f"{some([n.name for n in slow])}: {slow[0].cpu} cores; Docker allows no less than {LEAST_CPU}",
                "raise `cpu:`, or choose `--runtime namespace`",
            )
        )
    return problems
