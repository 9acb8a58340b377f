"""`cohortnet grafana`: the testbed's dashboards, in a Grafana started here or as files for one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortnet.terminal import JsonOption, TestbedOption, fail, need_root, pick_testbed, reported
from monitoring.grafana.bundle import BundleError, Source, source_of, write

DEFAULT_IMAGE = "grafana/grafana-oss:latest"
LOCK_WAIT_S = 5.0


def grafana(
    testbed: TestbedOption = None,
    image: Annotated[str, typer.Option("--image", help="Grafana's image, 11 or later.")] = DEFAULT_IMAGE,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of 127.0.0.1 that it serves.")] = 3000,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Only write the dashboards and provisioning "
                   "files there; needs neither Docker nor root.")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show the testbed in Grafana: starts a container with the dashboards in place, which `down` removes."""
    with reported(as_json):
        if out is not None:
            _write_out(out, testbed, as_json)
            return
        need_root()
        from topology.engine import state

        name = pick_testbed(testbed)["testbed"]
        # `down` waits for its turn, so that nothing is started for a testbed that is being taken away.
        with state.lock(name, wait_s=LOCK_WAIT_S):
            _start(pick_testbed(name), image, port, as_json)


def _write_out(out: Path, testbed: str | None, as_json: bool) -> None:
    try:
        source = _source_for_files(testbed)
        files = write(out, source)
    except BundleError as error:
        fail(str(error))
        return
    if as_json:
        print(json.dumps({"folder": str(out.resolve()), "prometheus": source.url, "files": [str(f) for f in files]}))
        return
    place = out.resolve()
    dashboards = [path for path in files if path.suffix == ".json"]
    print(f"Wrote {len(dashboards)} dashboards and the provisioning files to {place} (Prometheus: {source.url}).")
    print("Next, either let your Grafana read them when it starts:")
    print(f"  GF_PATHS_PROVISIONING={place}/provisioning grafana server")
    print("or add them by hand: a Prometheus data source with that address and the uid `cohortnet-prometheus` (as in")
    print(f"  {place}/provisioning/datasources/cohortnet.yaml), then Dashboards > New > Import each file of")
    print(f"  {place}/dashboards")


def _source_for_files(testbed: str | None) -> Source:
    """The named testbed's Prometheus, or that of the only one that is up, or where none is the default address."""
    from topology.engine.engine import list_testbeds
    from topology.errors import TopologyError

    if testbed is None:
        try:
            names = [summary.name for summary in list_testbeds()]
        except (TopologyError, OSError):
            names = []  # another user's testbeds: the files are the same, only the address may differ
        if len(names) != 1:
            return Source()
        try:
            return source_of(pick_testbed(names[0]))
        except (TopologyError, BundleError, OSError):
            return Source()
    return source_of(pick_testbed(testbed))


def _start(inventory: dict[str, Any], image: str, port: int, as_json: bool) -> None:
    from monitoring.grafana import container

    state = Path(inventory["paths"]["state"])
    try:
        source = source_of(inventory)
        running = container.start(inventory["testbed"], state, source, image=image, port=port)
    except container.MissingImage as error:
        fail(f"{error}. Next, one of:\n"
             f"  docker pull {image} && sudo cohortnet grafana --testbed {inventory['testbed']}\n"
             "  sudo cohortnet grafana --image IMAGE      an image of Grafana 11 or later that is here (`docker "
             "images`)\n"
             f"  sudo cohortnet grafana --testbed {inventory['testbed']} --out grafana   files for a Grafana of your "
             "own; needs no Docker")  # fmt: skip
        return
    except BundleError as error:
        fail(str(error))
        return
    if as_json:
        print(json.dumps({"container": running.container, "url": running.url, "prometheus": source.url}))
        return
    print(f"Grafana shows {inventory['testbed']} at {running.url} (Prometheus: {source.url}).")
    print(f"Looking needs no login; to change something: admin, with the password in {state}/grafana/admin-password.")
    print(f"`sudo cohortnet down {inventory['testbed']}` removes it (container {running.container}).", file=sys.stderr)
