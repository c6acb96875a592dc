"""What wheel and sdist hold, and what a developer's Makefile and CI run."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from fresh import ROOT, clone, parsed
from packaging.version import Version

from mdmmt.version import VERSION
from mdmmt.weights.layout import MODEL_FOLDER_FILES

DATA = {
    "mdmmt/py.typed",
    "mdmmt/sample/model/report.json",
    "mdmmt/search/page.html",
    "mdmmt/operator_entry.py.txt",
    "mdmmt/operator_stand_in.py.txt",
    "mdmmt/weights/model_card.md",
}
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
SIZE_BUDGET = 4_000_000  # bytes of the wheel; the sample model is most of it


def build(kind: str, folder: Path) -> Path:
    source = clone(folder / "clone")
    for litter in ("mdmmt/__pycache__/model.pyc", "tests/test_model.py", "demo/found.png"):
        (source / litter).parent.mkdir(exist_ok=True)
        (source / litter).write_text("litter")
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = [path for path in folder.iterdir() if path.is_file()]
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def package_files() -> set[str]:
    """The modules of the package and the files that they read, relative to the root."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mdmmt").rglob("*.py")}
    sample = {f"mdmmt/sample/model/{name}" for name in MODEL_FOLDER_FILES}
    return modules | DATA | {name for name in sample if (ROOT / name).exists()}


def test_wheel_holds_the_package_and_its_data_alone(wheel: Path) -> None:
    assert wheel.stat().st_size <= SIZE_BUDGET
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    information = f"mdmmt-{VERSION}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == package_files()
    for paper in ("LICENSE", "NOTICE"):
        assert f"{information}licenses/{paper}" in names


def test_wheel_describes_itself(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"mdmmt-{VERSION}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    assert metadata["Version"] == VERSION
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    assert entry_points.split() == ["[console_scripts]", "mdmmt", "=", "mdmmt.cli:main"]


def test_sdist_holds_what_the_wheel_is_built_from(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        files = {member.name for member in archive if member.isfile()}
    names = {name.partition("/")[2] for name in files}
    papers = {"LICENSE", "MANIFEST.in", "NOTICE", "README.md", "pyproject.toml"}
    made = {"PKG-INFO", "setup.cfg"}
    names = {name for name in names if not name.startswith("mdmmt.egg-info/")}
    assert names == package_files() | papers | made


def pyproject() -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_requirements_are_those_of_pyproject() -> None:
    requirements = (ROOT / "requirements.txt").read_text()
    assert requirements.splitlines() == pyproject()["dependencies"]
    assert "torchvision" not in parsed(requirements)


def test_oldest_pins_are_the_lower_bounds() -> None:
    """All that the operator needs is pinned, and of the extras what the tests run in that way."""
    bound = re.compile(r"^(\S+)>=([^,]+),", re.M)
    required = dict(bound.findall((ROOT / "requirements.txt").read_text()))
    assert required.pop("towhee") == "0.9"  # has an environment of its own
    extras = pyproject()["optional-dependencies"].values()
    bounds = required | dict(bound.findall("\n".join(line for extra in extras for line in extra)))
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "tests/oldest.txt").read_text(), re.M))
    assert pins.keys() >= required.keys()
    for name, version in pins.items():
        assert Version(version) == Version(bounds[name]), name


def test_ci_runs_the_command_that_readme_gives() -> None:
    assert "\nmake test " in (ROOT / "README.md").read_text()
    commands = (ROOT / ".ci/run").read_text().splitlines()
    assert commands[-2:] == ["make test", "make release-check"]


def test_makefile_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.+)$", text, re.M))
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"make ([a-z0-9-]+)", shown.stdout)) == targets
