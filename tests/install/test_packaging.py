"""The pinned requirements, what pyproject.toml allows and what an installation contains agree."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cohortnet", "topology", "mlfo", "fl_node", "monitoring")


def pins(name: str) -> dict[str, str]:
    """Name and version of each line of a requirements file; every line must be an exact pin."""
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)==([A-Za-z0-9_.!+-]+)", text)
        assert match, f"{name}: {text!r} is not NAME==VERSION"
        found[canonicalize_name(match[1])] = match[2]
    return found


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("requirements", "extra"), [("requirements.txt", None), ("requirements-dev.txt", "dev")]
)
def test_pins_are_exactly_what_the_project_depends_on(requirements: str, extra: str | None) -> None:
    declared = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    pinned = pins(requirements) | (pins("requirements.txt") if extra else {})
    for text in declared:
        need = Requirement(text)
        version = pinned.get(canonicalize_name(need.name))
        assert version, f"{requirements} does not pin {need.name}, which pyproject.toml needs"
        assert need.specifier.contains(version, prereleases=True), f"{version} is not {need}"
    surplus = set(pins(requirements)) - {canonicalize_name(Requirement(text).name) for text in declared}
    assert surplus <= {"setuptools"}, f"{requirements} pins what pyproject.toml does not name: {surplus}"


def test_torch_is_the_first_pin() -> None:
    assert next(iter(pins("requirements.txt"))) == "torch"
    assert next(iter(pins("requirements-node.txt"))) == "torch"


def test_nodes_run_the_versions_that_the_host_runs() -> None:
    host, node = pins("requirements.txt"), pins("requirements-node.txt")
    both = host.keys() & node.keys()
    assert {"torch", "flwr", "numpy", "grpcio", "protobuf", "pydantic", "flask"} <= both
    assert {name: node[name] for name in both} == {name: host[name] for name in both}


def test_no_file_of_the_installation_names_an_index() -> None:
    named = ["pyproject.toml", "fl_node/Dockerfile", ".dockerignore", ".ci/run"]
    for file in [*map(ROOT.joinpath, named), *ROOT.glob("requirements*.txt"), *ROOT.glob("scripts/*.sh")]:
        assert not re.findall(r"https?://(?!127\.0\.0\.1|localhost)\S+", file.read_text()), file


def test_the_wheel_has_the_data_that_the_code_reads(tmp_path: Path) -> None:
    """An installation without a checkout has the applications, their data and the intents, and no rubbish."""
    source = tmp_path / "source"
    source.mkdir()
    for name in (*PACKAGES, "intents"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = tmp_path.glob("cohortnet-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    wanted = [
        path.relative_to(ROOT).as_posix()
        for name in (*PACKAGES, "intents")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]
    assert not sorted(set(wanted) - names), "files of the packages that an installation would lack"
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert {name.split("/")[0] for name in names if "dist-info" not in name} <= {*PACKAGES, "intents"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for name in PACKAGES:
        assert f"{name}/__init__.py" in names
