"""The shell scripts: clean, explaining themselves without root, and refusing what they do not know."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["scripts/quickstart.sh", "scripts/test.sh", "scripts/build_image.sh"]
LIBRARY = "set -euo pipefail; . scripts/lib.sh; "


def run(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | (environment or {})
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=env)


def bash(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("bash", "-c", LIBRARY + text, environment=environment)


def test_shellcheck_finds_nothing() -> None:
    assert shutil.which("shellcheck"), "shellcheck is missing: sudo apt-get install shellcheck"
    scripts = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "scripts").glob("*.sh"))
    done = run("shellcheck", "-x", ".ci/run", *scripts)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_usage_and_what_is_installed(script: str) -> None:
    done = run(f"./{script}", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout and script in done.stdout
    if script != "scripts/build_image.sh":
        assert "Installs:" in done.stdout


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["scripts/quickstart.sh", "--runtime", "podman"], "podman"),
        (["scripts/quickstart.sh", "--rounds", "0"], "--rounds 0"),
        (["scripts/quickstart.sh", "--rounds"], "--rounds"),
        (["scripts/quickstart.sh", "--fast"], "--fast"),
        (["scripts/build_image.sh", "--base", "alpine"], "alpine"),
        (["scripts/build_image.sh", "--quick"], "--quick"),
    ],
)
def test_unknown_words_are_refused_before_anything_happens(command: list[str], named: str) -> None:
    done = run(*command)
    assert done.returncode == 2
    assert named in done.stderr and "error:" in done.stderr


@pytest.mark.parametrize("script", [*SCRIPTS, ".ci/run"])
def test_scripts_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_without_root_the_message_says_sudo() -> None:
    done = bash('id() { echo 1000; }; need_root scripts/quickstart.sh')
    assert done.returncode == 1
    assert "sudo scripts/quickstart.sh" in done.stderr


def test_what_is_installed_is_not_installed_again() -> None:
    done = bash('apt-get() { echo "called $*"; }; apt_missing "bash=the_shell" "coreutils=everything"')
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_what_is_missing_is_named_with_its_reason_before_it_is_installed() -> None:
    done = bash(
        'apt-get() { echo "called $*" >&2; }; apt_is_known() { true; }; id() { echo 0; };'
        "apt_log() { echo /dev/stderr; };"
        'apt_missing "cohortnet-no-such-package=the_reason_why" "bash=the_shell"'
    )
    assert done.returncode == 0, done.stderr
    assert "cohortnet-no-such-package" in done.stdout and "the reason why" in done.stdout
    installs = [line for line in done.stderr.splitlines() if line.startswith("called install")]
    assert len(installs) == 1 and installs[0].endswith(" cohortnet-no-such-package")


@pytest.mark.parametrize(("package", "ends"), [("prometheus", True), ("cohortnet-no-such-package", False)])
def test_only_a_service_that_we_installed_and_that_is_in_the_way_is_ended(package: str, ends: bool) -> None:
    setup = (
        "apt-get() { true; }; apt_is_known() { true; }; apt_is_installed() { false; }; id() { echo 0; };"
        "apt_log() { echo /dev/null; }; systemd_runs() { true; }; systemctl() { echo \"systemctl $*\" >&3; };"
    )
    done = bash(f"exec 3>&1; {setup} apt_missing {package}=why")
    assert done.returncode == 0, done.stderr
    assert ("systemctl disable --now prometheus.service" in done.stdout) is ends
    there = bash(f"exec 3>&1; {setup} apt_is_installed() {{ true; }}; apt_missing {package}=why")
    assert there.stdout == "", "what was there before is left as it is"


def test_an_unusable_python_is_refused_by_name() -> None:
    done = bash("find_python", COHORTNET_PYTHON="/bin/false")
    assert done.returncode == 1
    assert "COHORTNET_PYTHON=/bin/false" in done.stderr


def test_an_up_to_date_environment_is_left_alone(tmp_path: Path) -> None:
    """The stamp is what makes a second start cost nothing, and a changed pin what makes it work again."""
    for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    setup = f'COHORTNET_ROOT={tmp_path}; COHORTNET_VENV={tmp_path}/.venv; mkdir -p "$COHORTNET_VENV/bin";'
    # An interpreter that only notes how it was called stands for the environment's own: nothing is installed.
    program = tmp_path / "python"
    notes = f'echo "$@" >>{tmp_path}/calls; case "$*" in *sys.version*) echo 3.11;; esac'
    program.write_text(f"#!/bin/sh\n{notes}\n")
    program.chmod(0o755)
    setup += f'cp {program} "$COHORTNET_VENV/bin/python"; COHORTNET_PYTHON={program};'

    first = bash(setup + "make_venv run")
    assert first.returncode == 0, first.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    installs = [call for call in calls if " install " in call and "--dry-run" not in call]
    assert installs[0].endswith("torch==2.13.0"), "PyTorch alone and first"
    assert "requirements.txt" in installs[1] and "--editable" in installs[2]

    (tmp_path / "calls").unlink()
    second = bash(setup + "make_venv run")
    assert second.returncode == 0 and second.stdout == ""
    assert " install " not in (tmp_path / "calls").read_text()

    with (tmp_path / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    third = bash(setup + "make_venv run")
    assert "making the virtual environment" in third.stdout


def test_only_a_daemon_that_we_started_is_stopped() -> None:
    done = bash('sleep 60 & other=$!; stop_dockerd; kill -0 "$other" && echo alive; kill "$other"')
    assert "alive" in done.stdout
    done = bash(
        "sleep 60 & ours=$!; COHORTNET_DOCKERD_PID=$ours; stop_dockerd;"
        'kill -0 "$ours" 2>/dev/null || echo gone'
    )
    assert "gone" in done.stdout


@pytest.mark.live
@pytest.mark.docker
def test_a_docker_daemon_is_started_with_the_driver_that_works_and_ended(tmp_path: Path) -> None:
    """A second daemon beside the machine's own, in its own folders; overlay2 is made to fail: vfs is next."""
    assert shutil.which("dockerd"), "dockerd is missing: sudo apt-get install docker.io"
    socket = tmp_path / "d.sock"
    program = tmp_path / "bin" / "dockerd"
    program.parent.mkdir()
    places = f"--data-root {tmp_path}/data --exec-root {tmp_path}/exec --pidfile {tmp_path}/d.pid"
    # In a network namespace of its own: a daemon without a bridge deletes the docker0 that it finds.
    alone = f"unshare --net {shutil.which('dockerd')} --bridge none --iptables=false --ip6tables=false"
    program.write_text(
        f'#!/bin/sh\n[ "$2" != overlay2 ] || exit 1\n'
        f'exec {alone} --host unix://{socket} {places} "$@"\n'
    )
    program.chmod(0o755)
    done = bash(
        f"COHORTNET_ROOT={tmp_path}; systemd_runs() {{ false; }};"
        'start_dockerd; docker info --format "driver {{.Driver}}"; pid=$COHORTNET_DOCKERD_PID;'
        'cat "$COHORTNET_ROOT/build/dockerd.pid"; stop_dockerd;'
        'kill -0 "$pid" 2>/dev/null || echo "ended $pid"; ls "$COHORTNET_ROOT/build"',
        PATH=f"{program.parent}:{os.environ['PATH']}",
        DOCKER_HOST=f"unix://{socket}",
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "build/dockerd.log").read_text()
    lines = done.stdout.splitlines()
    assert "driver vfs" in lines
    assert f"ended {lines[lines.index('driver vfs') + 1]}" in lines
    assert "dockerd.pid" not in lines
