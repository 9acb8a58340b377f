#!/usr/bin/env bash
# All checks and all tests, live ones included. --help says more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<TEXT
Usage: sudo ./scripts/test.sh [--help] [PYTEST ARGUMENTS]

Installs what is missing (it says what and why), starts a Docker daemon where none answers and ends it afterwards, builds the
node image where its sources changed, then runs ruff, mypy, shellcheck and pytest. Arguments go to pytest:
  sudo ./scripts/test.sh                       everything
  sudo ./scripts/test.sh tests/mlfo -x         one folder, up to the first failure
  sudo ./scripts/test.sh -m 'not live'         what needs neither root nor this kernel's features

Installs: Debian packages (those of quickstart.sh; docker.io, mmdebstrap, shellcheck, tcpdump, prometheus, chromium, qemu-system-x86), and a virtual environment in
.venv with the packages of requirements.txt and requirements-dev.txt, PyTorch's CPU build where pip finds it (name an index
that has it with sudo COHORTNET_TORCH_INDEX=ADDRESS ./scripts/test.sh; the node image takes no other). Ends with status 0 only where all of it passed.
TEXT
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
need_root scripts/test.sh
cd "$COHORTNET_ROOT"
beside_pid=
leave() { [ -z "$beside_pid" ] || kill "$beside_pid" 2>/dev/null || true; stop_dockerd; }
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

apt_missing "${APT_TESTBED[@]}" \
    "docker.io=the_docker_runtime" \
    "mmdebstrap=base_image_where_no_registry_answers" \
    "debian-archive-keyring=verifies_that_image's_packages" \
    "shellcheck=checks_the_shell_scripts" \
    "tcpdump=tests_look_at_packets" \
    "prometheus=monitoring_(its_own_service_is_not_needed)" \
    "chromium=tests_look_at_the_report" \
    "qemu-system-x86=boots_the_kernel_with_netem_of_tests/kernel" \
    "kmod=lists_what_that_kernel's_modules_need" \
    "procps=tests_look_at_processes"
make_venv dev
start_dockerd
scripts/build_image.sh

failed=()
# step NAME COMMAND...: runs it, and remembers a failure instead of ending, so that one start shows everything.
step() {
    local name=$1 started=$SECONDS status=0
    shift
    say "$name"
    "$@" || status=$?
    [ $status -eq 0 ] || failed+=("$name (status $status)")
    say "$name: $((SECONDS - started)) s"
}

packages=()
for package in cohortnet topology mlfo fl_node monitoring topo.py; do
    [ ! -e "$package" ] || packages+=("$package")
done
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
step ruff "$COHORTNET_VENV/bin/ruff" check .
step mypy "$COHORTNET_VENV/bin/mypy" "${packages[@]}"
step shellcheck shellcheck -x .ci/run scripts/*.sh
# The environment's programs are found by name too, as after `source .venv/bin/activate`.
tests() { env PATH="$COHORTNET_VENV/bin:$PATH" "$COHORTNET_VENV/bin/python" -m pytest "$@"; }

# Tests that measure no rates and need no Ctrl-C (a background job ignores it) run beside the others; those that measure
# rates run last, when all others are done.
beside=(tests/fl_node tests/mlfo tests/monitoring/prometheus tests/monitoring/report
    tests/topology/docker_runtime tests/topology/face tests/topology/test_*.py)
measuring=(tests/topology/controller tests/topology/engine tests/topology/traffic tests/topology/verify tests/kernel
    tests/system/test_meters.py tests/system/test_fallback.py)

everything() {
    local paths=() status=0 log=build/tests-beside.log
    for path in "${beside[@]}"; do [ ! -e "$path" ] || paths+=("$path"); done
    mkdir -p build
    tests "${paths[@]}" >"$log" 2>&1 &
    beside_pid=$!
    tests tests "${paths[@]/#/--ignore=}" "${measuring[@]/#/--ignore=}" || status=1
    wait "$beside_pid" || status=1
    beside_pid=
    say "tests that ran beside these: ${paths[*]}"
    cat "$log"
    tests "${measuring[@]}" || status=1
    return $status
}

if [ $# -eq 0 ]; then step pytest everything; else step pytest tests "$@"; fi

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
say "all passed in $SECONDS s"
