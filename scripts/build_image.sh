#!/usr/bin/env bash
# Builds the node image of the docker runtime. --help says more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<TEXT
Usage: scripts/build_image.sh [--force] [--check] [--base auto|registry|debian] [--help]

Builds $COHORTNET_NODE_IMAGE, the image that the docker runtime's nodes run, from fl_node/Dockerfile. Does nothing where the
image was built from the sources as they are now (label cohortnet.sources).

  --force         build even so
  --check         build nothing: exit 0 where the image is up to date, 1 where not
  --base auto     (default) $COHORTNET_NODE_BASE as it is here, else from the registry, else made from Debian packages
  --base registry pull $COHORTNET_NODE_BASE anew
  --base debian   make $COHORTNET_NODE_BASE from Debian packages (mmdebstrap, needs root), with this machine's Debian mirror

Python packages are fetched by this machine's pip with its own settings (index, find-links, certificates, constraints,
PIP_* variables) into build/node-wheels; the build itself installs them from there, so no setting enters the image.
COHORTNET_TORCH_INDEX: address of an index with PyTorch's CPU wheels, where pip's own settings name none.
TEXT
}

force="" check="" base=auto
while [ $# -gt 0 ]; do
    case $1 in
        --force) force=yes ;;
        --check) check=yes ;;
        --base) need_value "$1" "$#"; base=$2; shift ;;
        -h | --help) usage; exit 0 ;;
        *) wrong_input "unknown option $1. Type scripts/build_image.sh --help" ;;
    esac
    shift
done
case $base in auto | registry | debian) ;; *) wrong_input "--base $base: allowed are auto, registry, debian" ;; esac

cd "$COHORTNET_ROOT"
WORK=
cleanup() { [ -z "$WORK" ] || rm -rf "$WORK"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# sources_hash: of everything that goes into the image, names and contents.
sources_hash() {
    find fl_node mlfo intents requirements-node.txt .dockerignore \
        \( -name __pycache__ -prune -o -name '*.pyc' -prune \) -o -type f -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

image_hash() {
    docker image inspect --format '{{index .Config.Labels "cohortnet.sources"}}' "$COHORTNET_NODE_IMAGE" 2>/dev/null || true
}

# --- the base image ------------------------------------------------------------------------------------------------

have_base() { docker image inspect "$COHORTNET_NODE_BASE" >/dev/null 2>&1; }

# pull_base: bounded, because a registry that is not reachable may neither answer nor refuse. --foreground here and below:
# else `timeout` keeps Ctrl-C from the command.
pull_base() {
    say "pulling $COHORTNET_NODE_BASE"
    timeout --foreground 300 docker pull -q "$COHORTNET_NODE_BASE" >"$WORK/pull.log" 2>&1
}

# debian_mirrors FILE: apt sources of bookworm as this machine reaches them, where it is a Debian machine with a mirror other
# than the one that mmdebstrap takes by itself; else an empty file.
debian_mirrors() {
    local line label uri main="" security=""
    : >"$1"
    while IFS='|' read -r line label uri; do
        [ "$line" = Debian ] || continue
        case $label in
            Debian) main=${main:-${uri%/}} ;;
            Debian-Security) security=${security:-${uri%/}} ;;
        esac
    done < <(apt-get indextargets --format "\$(ORIGIN)|\$(LABEL)|\$(REPO_URI)" 'Created-By: Packages' 2>/dev/null || true)
    [ -n "$main" ] || return 0
    ! grep -qF "'$main'" "$(command -v mmdebstrap)" || return 0
    {
        echo "deb $main bookworm main"
        echo "deb $main bookworm-updates main"
        [ -z "$security" ] || echo "deb $security bookworm-security main"
    } >"$1"
}

# make_base: a Debian of the same release with the same Python, under the same name. It already has what the Dockerfile
# would install, so that the build needs no network.
make_base() {
    local started=$SECONDS options=() proxy hook packages
    need_root scripts/build_image.sh
    apt_missing "mmdebstrap=makes_the_base_image_from_Debian_packages" "debian-archive-keyring=verifies_them"
    say "making $COHORTNET_NODE_BASE from Debian packages (bookworm, Python 3.11)"
    debian_mirrors "$WORK/sources.list"
    # This machine's proxy and mirror serve the making only; what the image keeps names neither.
    for proxy in Acquire::http::Proxy Acquire::https::Proxy; do
        proxy=$(apt-config dump "$proxy" 2>/dev/null | head -n 1)
        [ -z "$proxy" ] || options+=("--aptopt=$proxy")
    done
    # shellcheck disable=SC2016  # mmdebstrap gives the new root to the hook's shell as $1
    hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"; ln -sf python3 "$1/usr/bin/python"; rm -rf "$1"/var/cache/* "$1"/var/log/*'
    if [ -s "$WORK/sources.list" ]; then
        hook="$hook; rm -f \"\$1\"/etc/apt/sources.list \"\$1\"/etc/apt/sources.list.d/*"
        options+=("--customize-hook=$hook" bookworm "$WORK/base.tar" "$WORK/sources.list")
    else
        options+=("--customize-hook=$hook" bookworm "$WORK/base.tar")
    fi
    packages=python3,python3-venv,python3-pip,ca-certificates
    packages+=,iproute2,iputils-ping,iperf3,ethtool,procps,tini,dataset-fashion-mnist # as in fl_node/Dockerfile
    timeout --foreground 900 mmdebstrap --variant=minbase --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "${options[@]}" >"$WORK/mmdebstrap.log" 2>&1 </dev/null ||
        { tail -n 20 "$WORK/mmdebstrap.log" >&2; die "mmdebstrap failed"; }
    docker import \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
        --change 'CMD ["python3"]' --change 'LABEL cohortnet.base=debian-packages' \
        "$WORK/base.tar" "$COHORTNET_NODE_BASE" >/dev/null
    rm -f "$WORK/base.tar"
    say "$COHORTNET_NODE_BASE made in $((SECONDS - started)) s, $(image_megabytes "$COHORTNET_NODE_BASE") MB"
}

prepare_base() {
    case $base in
        registry) pull_base || { cat "$WORK/pull.log" >&2; die "no registry answers. Type: sudo scripts/build_image.sh --base debian"; } ;;
        debian) make_base ;;
        auto)
            have_base || pull_base || {
                say "no registry answers ($(tail -n 1 "$WORK/pull.log" | cut -c1-100))"
                make_base
            }
            ;;
    esac
}

image_megabytes() { echo $(($(docker image inspect --format '{{.Size}}' "$1") / 1000000)); }

# --- the Python packages -------------------------------------------------------------------------------------------

# fetch_wheels: exactly the pinned ones, for the image's Python whatever this machine's is, into build/node-wheels.
fetch_wheels() {
    local want target=build/node-wheels python minor options=() torch=() started=$SECONDS
    want=$(sha256sum requirements-node.txt | cut -d' ' -f1)
    [ "$(cat build/node-wheels.stamp 2>/dev/null)" != "$want" ] || [ ! -d $target ] || return 0
    python=$COHORTNET_VENV/bin/python
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        find_python
        "$COHORTNET_PYTHON" -m venv "$WORK/venv"
        python=$WORK/venv/bin/python
    fi
    if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != 3.11 ]; then
        options=(--python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
        for minor in $(seq 36 -1 5); do options+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
        for minor in 2014 2010 1; do options+=(--platform "manylinux${minor}_$(uname -m)"); done
    fi
    # pip looks for another Python's wheels only with a folder named to put them in; a dry run puts nothing there.
    ! torch_is_cuda "$python" --only-binary=:all: "${options[@]}" --target "$WORK/nothing" ||
        die "pip would take PyTorch's CUDA build, several GB, for an image whose nodes compute on the CPU. $HOW_TO_GET_CPU_TORCH"
    torch_settings torch
    say "fetching the node's Python packages with this machine's pip (PyTorch's CPU build is about 190 MB)"
    "$python" -m pip --disable-pip-version-check download -qq --no-deps --only-binary=:all: "${options[@]}" "${torch[@]}" \
        --dest "$WORK/wheels" -r requirements-node.txt
    mkdir -p build
    rm -rf $target
    mv "$WORK/wheels" $target
    give_back build
    printf '%s\n' "$want" >build/node-wheels.stamp
    say "$(find $target -name '*.whl' | wc -l) packages, $(du -sm $target | cut -f1) MB, in $((SECONDS - started)) s"
}

# --- the image -----------------------------------------------------------------------------------------------------

# docker_build ARGUMENTS: the log is shown only where it matters. --force-rm: no intermediate container stays.
docker_build() {
    "${builder[@]}" docker build --pull=false --force-rm "${network[@]}" -f fl_node/Dockerfile "$@" . >"$WORK/build.log" 2>&1 ||
        { tail -n 40 "$WORK/build.log" >&2; die "docker build failed"; }
}

build() {
    local started=$SECONDS builder=() network=() before
    before=$(docker image inspect --format '{{.Id}}' "$COHORTNET_NODE_IMAGE" 2>/dev/null || true)
    say "building $COHORTNET_NODE_IMAGE"
    # Nothing is left to fetch where the base has the system's packages, and pip's are here.
    [ "$(docker image inspect --format '{{index .Config.Labels "cohortnet.base"}}' "$COHORTNET_NODE_BASE")" != debian-packages ] ||
        network=(--network none)
    # Debian's docker.io has no buildx: the daemon's own builder then, chosen here so that the client does not warn. Its
    # cache is its images: the first stage gets a name, so that it is neither an anonymous image nor pruned and built anew.
    if ! docker buildx version >/dev/null 2>&1; then
        builder=(env DOCKER_BUILDKIT=0)
        docker_build --target packages -t "${COHORTNET_NODE_IMAGE%%:*}-packages:latest"
    fi
    docker_build -t "$COHORTNET_NODE_IMAGE" --label "cohortnet.sources=$want"
    # The image that had the name before; it stays while a container still runs it.
    if [ -n "$before" ] && [ "$before" != "$(docker image inspect --format '{{.Id}}' "$COHORTNET_NODE_IMAGE")" ]; then
        docker image rm "$before" >/dev/null 2>&1 || true
    fi
    say "$COHORTNET_NODE_IMAGE built in $((SECONDS - started)) s, $(image_megabytes "$COHORTNET_NODE_IMAGE") MB"
}

command -v docker >/dev/null || die "docker is not installed. Type: sudo apt-get install docker.io"
docker_answers || die "the Docker daemon does not answer. Start it (sudo systemctl start docker), or: sudo dockerd &"
want=$(sources_hash)
if [ "$(image_hash)" = "$want" ] && [ -z "$force" ]; then
    [ -n "$check" ] || say "$COHORTNET_NODE_IMAGE is up to date"
    exit 0
fi
[ -z "$check" ] || exit 1
WORK=$(mktemp -d "${TMPDIR:-/tmp}/cohortnet-image.XXXXXX")
prepare_base
fetch_wheels
build
