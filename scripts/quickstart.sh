#!/usr/bin/env bash
# From a fresh machine to two cohorts that learned, in one command. --help says more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<TEXT
Usage: sudo ./scripts/quickstart.sh [--rounds N] [--runtime namespace|docker] [--keep] [--help]

Installs what is missing (it says what and why), raises a small factory-satellite testbed (2 campuses, 8 clients, 2 cohorts
with a server each), posts two of the shipped intents with curl, shows the runs' progress, ends with a table of what each
cohort reached and sent, and takes the testbed down again, also on failure and Ctrl-C.

  --rounds N      federated rounds of each intent (default 3)
  --runtime KIND  namespace (default): no daemon and no image; docker: one container a node, image built if missing
  --keep          leave the testbed up at the end

Installs: Debian packages (openvswitch-switch, iproute2, iputils-ping, iperf3, nftables, ethtool, curl, dataset-fashion-mnist, Python's
venv; for docker also docker.io), and a virtual environment in .venv with the packages of requirements.txt, PyTorch's CPU build
where pip finds it: sudo COHORTNET_TORCH_INDEX=ADDRESS ./scripts/quickstart.sh names an index that has it.
TEXT
}

NAME=quickstart
MLFO=http://127.0.0.1:8000
rounds=3 runtime=namespace keep=""
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) need_value "$1" "$#"; rounds=$2; shift ;;
        --runtime) need_value "$1" "$#"; runtime=$2; shift ;;
        --keep) keep=yes ;;
        -h | --help) usage; exit 0 ;;
        *) wrong_input "unknown option $1. Type scripts/quickstart.sh --help" ;;
    esac
    shift
done
[[ $rounds =~ ^[1-9][0-9]{0,3}$ ]] || wrong_input "--rounds $rounds: allowed is a whole number from 1 to 9999"
case $runtime in namespace | docker) ;; *) wrong_input "--runtime $runtime: allowed are namespace, docker" ;; esac
need_root scripts/quickstart.sh
cd "$COHORTNET_ROOT"

cohortnet() { "$COHORTNET_VENV/bin/cohortnet" "$@"; }

raised="" finished=""
# What we raised goes down however we end; a second Ctrl-C does not leave it half taken down.
cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    if [ -n "$raised" ]; then
        if [ -n "$keep" ] && [ -n "$finished" ]; then
            say "the testbed is kept. Look around: sudo .venv/bin/cohortnet ls; take it down: sudo .venv/bin/cohortnet down $NAME"
        else
            say "taking the testbed down"
            timeout -k 10 180 "$COHORTNET_VENV/bin/cohortnet" down "$NAME" || {
                warn "the testbed is not wholly down. Type: sudo .venv/bin/cohortnet down $NAME"
                [ $status -ne 0 ] || status=1
            }
        fi
    fi
    { [ -n "$keep" ] && [ -n "$finished" ]; } || stop_dockerd
    [ $status -ne 0 ] || say "done in $SECONDS s"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# post_intent FILE FIRST: posts an intent for the four clients from 10.0.1.FIRST on; prints the answer's id.
post_intent() {
    local answer
    answer=$(curl --silent --show-error --fail-with-body --max-time 30 \
        -F "file=@$1" -F "ipstart=$2" -F cohortsize=4 -F sameserver=no -F avgalgo=FedAvg -F fracfit=1.0 -F minfit=4 -F minav=4 \
        -F "numround=$rounds" "$MLFO/receive") || { printf '%s\n' "$answer" >&2; die "the MLFO did not take $1"; }
    "$COHORTNET_VENV/bin/python" -c 'import json, sys
answer = json.loads(sys.argv[1])
for note in answer.get("notes") or []:
    print("      note:", note if isinstance(note, str) else note.get("message", note), file=sys.stderr)
print(answer["id"])' "$answer"
}

# lacks_delay: whether the doctor found that this kernel cannot delay packets.
lacks_delay() {
    local found
    found=$(cohortnet doctor --json) || die "cohortnet doctor failed"
    "$COHORTNET_VENV/bin/python" -c 'import json, sys
sys.exit(json.loads(sys.argv[1])["capabilities"]["netem"] is True)' "$found"
}

apt_missing "${APT_TESTBED[@]}"
make_venv run
if [ "$runtime" = docker ]; then
    apt_missing "docker.io=one_container_a_node"
    start_dockerd
    scripts/build_image.sh
fi

allow=()
if lacks_delay; then
    say "this kernel cannot delay packets (no sch_netem): the satellite's 12 ms are left out (--allow-unsupported delay)"
    allow=(--allow-unsupported delay)
fi
if [ -e "/run/cohortnet/$NAME" ]; then
    say "taking down what an earlier quickstart left"
    timeout -k 10 180 "$COHORTNET_VENV/bin/cohortnet" down "$NAME"
fi
say "raising the testbed"
raised=yes
cohortnet up --preset factory-satellite --cohorts 2 --clients 8 --campuses 2 --name "$NAME" --runtime "$runtime" "${allow[@]}"

say "posting intents/drilling.yaml for clients fc.10 to fc.13 and intents/cutting.yaml for fc.14 to fc.17, $rounds rounds each"
first=$(post_intent intents/drilling.yaml 10)
second=$(post_intent intents/cutting.yaml 14)
say "runs $first and $second"
# Shows progress, then the table of the run records: cohort, server, rounds, accuracy a round, bytes up and down, seconds.
cohortnet intent wait "$first" "$second" --testbed "$NAME"
finished=yes
