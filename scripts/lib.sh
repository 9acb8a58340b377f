# shellcheck shell=bash
# What the scripts share: finding and installing what is missing, the virtual environment, the Docker daemon.
# Sourced, never executed. Each function says what it does before it changes the machine, and does nothing where
# nothing is missing, so that a second start costs no time.

COHORTNET_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
COHORTNET_VENV=$COHORTNET_ROOT/.venv
# shellcheck disable=SC2034  # used by the scripts that source this file
COHORTNET_NODE_IMAGE=cohortnet/node:latest
# shellcheck disable=SC2034
COHORTNET_NODE_BASE=python:3.11-slim

say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# wrong_input TEXT...: what was typed cannot be done; nothing was done.
wrong_input() { printf 'error: %s\n' "$*" >&2; exit 2; }

# need_root SCRIPT: network namespaces, Open vSwitch and packages need root; say how to get it.
need_root() {
    [ "$(id -u)" -eq 0 ] || die "$1 needs root (network namespaces, Open vSwitch, packages). Type: sudo $1"
}

# need_value OPTION "$#": an option that takes a value was given one.
need_value() { [ "$2" -ge 2 ] || wrong_input "$1 needs a value. Type $0 --help"; }

# --- Debian packages ---------------------------------------------------------------------------------------------

apt_is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

apt_is_known() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }

# apt_missing NAME=WHY...: install those of the named packages that are missing; WHY is shown (underscores are spaces).
apt_missing() {
    local item missing=()
    for item in "$@"; do
        apt_is_installed "${item%%=*}" || missing+=("$item")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]%%=*}. This script installs with apt-get only; install these with your distribution's tool."
    [ "$(id -u)" -eq 0 ] || die "missing Debian packages: ${missing[*]%%=*}. Type: sudo apt-get install ${missing[*]%%=*}"
    say "installing ${#missing[@]} Debian packages:"
    for item in "${missing[@]}"; do
        printf '      %-24s %s\n' "${item%%=*}" "$(tr _ ' ' <<<"${item#*=}")"
    done
    apt_update_once
    for item in "${missing[@]}"; do
        apt_is_known "${item%%=*}" || die "no configured apt source has ${item%%=*} (on Ubuntu: add-apt-repository universe)"
    done
    # A package's own services are started (Open vSwitch's) or not as the machine's policy says.
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]%%=*}" >"$(apt_log)" 2>&1 ||
        { tail -n 20 "$(apt_log)" >&2; die "apt-get install failed; its output is in $(apt_log)"; }
    for item in "${APT_NO_SERVICE[@]}"; do
        case " ${missing[*]%%=*} " in *" $item "*) end_service "$item" ;; esac
    done
}

# Packages whose own service would only stand in the way: it holds the port that testbeds use. One that ran before we
# installed anything is never touched.
APT_NO_SERVICE=(prometheus)

# end_service NAME: end and disable the service that the package has just started.
end_service() {
    systemd_runs || return 0
    say "ending the service $1 that its package has started (testbeds start their own)"
    systemctl disable --now "$1.service" >/dev/null 2>&1 || warn "the service $1 could not be ended: sudo systemctl disable --now $1"
}

apt_log() { mkdir -p "$COHORTNET_ROOT/build" && printf '%s\n' "$COHORTNET_ROOT/build/apt.log"; }

COHORTNET_APT_UPDATED=
# apt_update_once: the package lists, at most once in one start of a script.
apt_update_once() {
    [ -z "$COHORTNET_APT_UPDATED" ] || return 0
    apt-get update -q -o DPkg::Lock::Timeout=300 >"$(apt_log)" 2>&1 ||
        warn "apt-get update failed; trying with the package lists that are here ($(apt_log))"
    COHORTNET_APT_UPDATED=yes
}

# What a testbed on the namespace runtime needs from the distribution.
# shellcheck disable=SC2034
APT_TESTBED=(
    "openvswitch-switch=OpenFlow_switches_(each_testbed_runs_its_own)"
    "iproute2=network_namespaces,_links,_traffic_control"
    "iputils-ping=reachability"
    "iperf3=goodput_of_links,_background_traffic"
    "nftables=isolation_of_the_management_plane"
    "ethtool=offload_settings_of_virtual_links"
    "curl=posting_intents"
    "ca-certificates=certificates_of_package_indexes"
    "dataset-fashion-mnist=training_data,_offline"
)

# --- Python ------------------------------------------------------------------------------------------------------

# python_is_usable PROGRAM: at least 3.11, and able to make a virtual environment with pip.
python_is_usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# find_python: sets COHORTNET_PYTHON. Installs Debian's or Ubuntu's where none is usable. 3.11 is looked for first: it
# is the node image's own, and then both use the same wheels.
find_python() {
    local candidate version
    if [ -n "${COHORTNET_PYTHON:-}" ]; then
        python_is_usable "$COHORTNET_PYTHON" ||
            die "COHORTNET_PYTHON=$COHORTNET_PYTHON is not a Python of 3.11 or later with the modules venv and ensurepip"
        return 0
    fi
    for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
        if python_is_usable "$candidate"; then COHORTNET_PYTHON=$candidate; return 0; fi
    done
    # /usr/bin/python3 is new enough and only lacks its venv module (Debian splits it off), else Ubuntu 22.04's 3.11.
    version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2]) if sys.version_info >= (3, 11) else None' \
        2>/dev/null || true)
    [ -n "$version" ] && [ "$version" != None ] || version=3.11
    [ "$(id -u)" -eq 0 ] || die "no Python of 3.11 or later with venv. Type: sudo apt-get install python$version python$version-venv"
    apt_missing "python$version=Python_3.11_or_later" "python$version-venv=virtual_environments"
    COHORTNET_PYTHON=python$version
    python_is_usable "$COHORTNET_PYTHON" || die "$COHORTNET_PYTHON was installed, but cannot make virtual environments"
}

# torch_settings ARRAY: pip arguments for PyTorch: an index with CPU wheels, where the user names one.
torch_settings() {
    # shellcheck disable=SC2178  # the caller's array
    local -n settings=$1
    settings=()
    [ -z "${COHORTNET_TORCH_INDEX:-}" ] || settings+=(--extra-index-url "$COHORTNET_TORCH_INDEX")
}

# torch_requirement FILE: the line that pins PyTorch.
torch_requirement() { grep -m1 '^torch==' "$1" || die "$1 pins no torch"; }

# make_venv run|dev: the repository's virtual environment with all pinned packages and the command `cohortnet`; with `dev`
# also what the tests need (it stays, so that the two scripts do not undo each other's work). Costs nothing where the stamp says that it is up to date.
make_venv() {
    local kind=$1 files=("$COHORTNET_ROOT/requirements.txt") want stamp=$COHORTNET_VENV/.cohortnet-stamp
    local pip torch=() started=$SECONDS
    find_python
    if [ "$kind" = dev ] || [ -e "$COHORTNET_VENV/.cohortnet-dev" ]; then
        files+=("$COHORTNET_ROOT/requirements-dev.txt")
    fi
    want=$("$COHORTNET_PYTHON" -c 'import sys; print(sys.version)' |
        cat - "${files[@]}" "$COHORTNET_ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)" $COHORTNET_ROOT"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then return 0; fi

    say "making the virtual environment $COHORTNET_VENV ($COHORTNET_PYTHON): PyTorch, Flower, gRPC and the rest of" \
        "${files[*]##*/}"
    rm -f "$stamp"
    # Another Python's environment, or a moved one, is made anew: its programs name their interpreter by its full path.
    if ! "$COHORTNET_VENV/bin/python" -m pip --version >/dev/null 2>&1 ||
        [ "$("$COHORTNET_VENV/bin/python" -c 'import sys; print(sys.version)')" != \
            "$("$COHORTNET_PYTHON" -c 'import sys; print(sys.version)')" ]; then
        rm -rf "$COHORTNET_VENV"
        "$COHORTNET_PYTHON" -m venv "$COHORTNET_VENV"
    fi
    pip=("$COHORTNET_VENV/bin/python" -m pip --disable-pip-version-check)
    torch_settings torch
    if torch_is_cuda "$COHORTNET_VENV/bin/python"; then
        warn "pip takes PyTorch's CUDA build, several GB, though nodes compute on the CPU. For 200 MB instead: $HOW_TO_GET_CPU_TORCH"
    fi
    # PyTorch alone and first: in one go with the rest pip may prefer a later, much larger build.
    "${pip[@]}" install -qq "${torch[@]}" "$(torch_requirement "$COHORTNET_ROOT/requirements.txt")"
    "${pip[@]}" install -qq "${torch[@]}" "${files[@]/#/-r}"
    # `compat` puts the whole folder on the path: a package that is added later is found without another installation.
    "${pip[@]}" install -qq --no-deps --no-build-isolation --config-settings editable_mode=compat --editable "$COHORTNET_ROOT"
    [ "$kind" != dev ] || touch "$COHORTNET_VENV/.cohortnet-dev"
    printf '%s\n' "$want" >"$stamp"
    give_back "$COHORTNET_VENV" "$COHORTNET_ROOT"/*.egg-info
    say "virtual environment ready after $((SECONDS - started)) s ($(du -sm "$COHORTNET_VENV" | cut -f1) MB)"
}

# give_back PATH...: what root made in a user's checkout belongs to that user.
give_back() {
    local path
    [ "$(id -u)" -eq 0 ] || return 0
    for path in "$@"; do
        [ ! -e "$path" ] || chown -R --no-dereference --reference="$COHORTNET_ROOT" "$path"
    done
}

# torch_is_cuda PYTHON [PIP OPTIONS]: whether that Python's pip would take PyTorch's CUDA build, that is, whether the wheel
# that it chooses needs, on this machine, the packages that CUDA comes in. Fetches nothing but the wheel's metadata.
torch_is_cuda() {
    local report torch=()
    torch_settings torch
    report=$("$1" -m pip --disable-pip-version-check install -qq --dry-run --ignore-installed --no-deps --report - "${@:2}" "${torch[@]}" \
        "$(torch_requirement "$COHORTNET_ROOT/requirements.txt")") || die "pip finds no $(torch_requirement "$COHORTNET_ROOT/requirements.txt")"
    "$1" -c 'import json, sys
from pip._vendor.packaging.requirements import Requirement
needs = map(Requirement, json.load(sys.stdin)["install"][0]["metadata"].get("requires_dist", []))
here = [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
sys.exit(not any(name.startswith(("nvidia-", "cuda-")) for name in here))' <<<"$report"
}

HOW_TO_GET_CPU_TORCH="set COHORTNET_TORCH_INDEX to the address of PyTorch's index of CPU wheels, or PIP_FIND_LINKS to a folder \
that has the wheel (behind sudo: sudo NAME=VALUE scripts/...)"

# --- Docker ------------------------------------------------------------------------------------------------------

docker_answers() { timeout 10 docker info >/dev/null 2>&1; }

systemd_runs() { [ -d /run/systemd/system ]; }

COHORTNET_DOCKERD_PID=
# start_dockerd: a Docker daemon that answers. One that we had to start ourselves is ended by stop_dockerd; a service
# started through systemd is left running, as an installed service is.
start_dockerd() {
    local log=$COHORTNET_ROOT/build/dockerd.log driver
    docker_answers && return 0
    command -v dockerd >/dev/null || die "the Docker daemon does not answer and dockerd is not installed. Type: sudo apt-get install docker.io"
    [ "$(id -u)" -eq 0 ] || die "the Docker daemon does not answer, and starting it needs root"
    if systemd_runs; then
        say "starting the Docker daemon (systemctl start docker)"
        timeout 90 systemctl start docker || die "systemctl start docker failed; see: journalctl -u docker"
        wait_for_docker 30 "" || die "the Docker daemon was started and does not answer; see: journalctl -u docker"
        return 0
    fi
    mkdir -p "$COHORTNET_ROOT/build"
    for driver in overlay2 vfs; do
        say "starting a Docker daemon (no systemd here): dockerd --storage-driver $driver, log in $log"
        setsid dockerd --storage-driver "$driver" >"$log" 2>&1 </dev/null &
        COHORTNET_DOCKERD_PID=$!
        printf '%s\n' "$COHORTNET_DOCKERD_PID" >"$COHORTNET_ROOT/build/dockerd.pid"
        wait_for_docker 60 "$COHORTNET_DOCKERD_PID" && return 0
        stop_dockerd
    done
    tail -n 5 "$log" >&2
    die "dockerd did not start; its log is $log"
}

# wait_for_docker SECONDS PID: until the daemon answers; fails when the time is over, or PID has ended.
wait_for_docker() {
    local deadline=$((SECONDS + $1))
    until docker_answers; do
        [ $SECONDS -lt $deadline ] || return 1
        [ -z "$2" ] || kill -0 "$2" 2>/dev/null || return 1
        sleep 0.5
    done
}

# stop_dockerd: end exactly the daemon that start_dockerd started, if it did.
stop_dockerd() {
    local pid=$COHORTNET_DOCKERD_PID deadline=$((SECONDS + 30))
    [ -n "$pid" ] || return 0
    COHORTNET_DOCKERD_PID=
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { kill -KILL "$pid" 2>/dev/null || true; break; }
        sleep 0.2
    done
    rm -f "$COHORTNET_ROOT/build/dockerd.pid"
}
