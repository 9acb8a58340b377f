"""Debian's kernel, fetched with apt and unpacked into `build/kernel-bench/<key>/`; nothing is installed.

Takes what apt offers, gives a kernel, its modules and a static busybox. The key is a hash of the packages' names and
versions and of what is taken out of them, so a newer kernel makes a new folder and removes the older ones. Never
touches the host's /boot or /lib/modules.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "kernel-bench"
_META = "linux-image-amd64"
_BUSYBOX = "busybox-static"
_PARTS = ("arch/x86/crypto", "crypto", "drivers/block", "drivers/char", "drivers/net", "drivers/virtio", "fs/9p",
          "fs/fscache", "fs/netfs", "fs/overlayfs", "lib", "net")  # fmt: skip
"""Folders of modules that are unpacked: network, the file systems of the guest, and what these need."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel. `modules` is a folder with `lib/modules/<release>`."""

    release: str
    image: Path
    modules: Path
    busybox: Path


def _run(command: list[str], cwd: Path | None = None, timeout_s: float = 300) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _offered() -> dict[str, str]:
    """Name -> version of the packages that are wanted, as apt offers them."""
    depends = _run(["apt-cache", "depends", _META])
    names = re.findall(r"Depends: (linux-image-\S+)", depends)
    if not names:
        raise RuntimeError(f"apt knows no kernel behind {_META}: {depends or 'no answer'}; try `apt-get update`")
    versions = {}
    for name in (names[0], _BUSYBOX):
        found = re.search(r"Candidate: (\S+)", _run(["apt-cache", "policy", name]))
        if found is None or found.group(1) == "(none)":
            raise RuntimeError(f"apt offers no {name}; try `apt-get update`, and `main` in the sources of apt")
        versions[name] = found.group(1)
    return versions


def kernel() -> Kernel:
    """The kernel to boot, fetched where it is not there yet (70 MB, some 15 s).

    Raises:
        RuntimeError: where apt does not offer it or a step fails; with the command and its words.
    """
    if platform.machine() != "x86_64":
        raise RuntimeError(f"the kernel bench boots x86_64 only, this machine is {platform.machine()}")
    # Of the packages that were unpacked before, the newest is as good as apt's: no test waits for the network then.
    for folder in sorted(CACHE.glob(f"{_recipe()}-*"), key=lambda path: path.stat().st_mtime, reverse=True):
        if (folder / "complete").exists():
            return _kernel_in(folder)
    try:
        versions = _offered()
    except RuntimeError:  # a fresh machine has no package lists
        _run(["apt-get", "update", "-q"])
        versions = _offered()
    key = hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:10]
    folder = CACHE / f"{_recipe()}-{key}"
    for other in CACHE.glob("*"):
        shutil.rmtree(other)
    _unpack(folder, versions)
    return _kernel_in(folder)


def _recipe() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:10]


def _kernel_in(folder: Path) -> Kernel:
    image = next((folder / "boot").glob("vmlinuz-*"))
    return Kernel(image.name.removeprefix("vmlinuz-"), image, folder, folder / "bin" / "busybox")


def _unpack(folder: Path, versions: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    packages = [f"{name}={version}" for name, version in versions.items()]
    try:
        # apt's own user may not write here; as root it downloads itself and says so.
        _run(["apt-get", "download", "-q", *packages], cwd=folder)
    except RuntimeError:  # the lists are older than the archive
        _run(["apt-get", "update", "-q"])
        for other in (*folder.glob("*.deb"), *folder.glob("*.FAILED")):
            other.unlink()
        _run(["apt-get", "download", "-q", *versions], cwd=folder)
    for package in folder.glob("*.deb"):
        if package.name.startswith(_BUSYBOX):
            wanted = ["./bin/busybox"]
        else:
            release = package.name.removeprefix("linux-image-").partition("_")[0]
            base = f"./lib/modules/{release}"
            wanted = [f"./boot/vmlinuz-{release}", f"{base}/modules.builtin", f"{base}/modules.builtin.modinfo",
                      f"{base}/modules.order", *(f"{base}/kernel/{part}" for part in _PARTS)]  # fmt: skip
        _extract(package, folder, wanted)
        package.unlink()
    done = _kernel_in(folder)
    _run(["depmod", "-b", str(folder), done.release])
    (folder / "complete").touch()


def _extract(package: Path, folder: Path, wanted: list[str]) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
        # Newer packages have everything below /usr: both places are asked for, and missing ones are no error.
        names = [*wanted, *(f"./usr{name[1:]}" for name in wanted)]
        subprocess.run(["tar", "-x", "-C", str(folder), *names], stdin=archive.stdout, capture_output=True, timeout=300,
                       check=False)  # fmt: skip
    usr = folder / "usr"
    if usr.is_dir():
        shutil.copytree(usr, folder, dirs_exist_ok=True)
        shutil.rmtree(usr)
    missing = [name for name in wanted[:1] if not (folder / name).exists()]
    if missing:
        raise RuntimeError(f"{package.name} has no {missing[0]}")


def first_modules(found: Kernel, names: tuple[str, ...]) -> list[Path]:
    """The files of these modules and of all that they need, in the order in which they are to be loaded."""
    base = found.modules / "lib" / "modules" / found.release
    needs: dict[str, list[str]] = {}
    for line in (base / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {re.sub(r"\.ko.*$", "", Path(path).name).replace("-", "_"): path for path in needs}
    builtin = (base / "modules.builtin").read_text(encoding="ascii")
    order: list[str] = []
    for name in names:
        if name not in by_name:
            if re.search(rf"/{name}\.ko$", builtin.replace("-", "_"), re.MULTILINE):
                continue
            raise RuntimeError(f"the kernel {found.release} has no module {name}")
        for path in (*reversed(needs[by_name[name]]), by_name[name]):
            if path not in order:
                order.append(path)
    return [base / path for path in order]
