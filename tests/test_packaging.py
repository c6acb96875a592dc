"""What wheel and sdist hold, and what a developer's Makefile and CI run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh import ROOT, clone, parsed
from packaging.version import Version

from mdmmt.version import VERSION
from mdmmt.weights.layout import MODEL_FOLDER_FILES

DATA = {
    "mdmmt/py.typed",
    "mdmmt/sample/model/report.json",
    "mdmmt/search/page.html",
    "mdmmt/app/page.css",
    "mdmmt/search/cards.css",
    "mdmmt/search/cards.html",
    "mdmmt/search/page.js",
    "mdmmt/operator_entry.py.txt",
    "mdmmt/operator_readme.md",
    "mdmmt/operator_stand_in.py.txt",
    "mdmmt/weights/model_card.md",
}
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
SIZE_BUDGET = 4_000_000  # bytes of the wheel; the sample model is most of it


def build(kind: str, folder: Path, files: Iterable[str] = ()) -> Path:
    """Build from a clone, in which these files lie as well, and some litter."""
    source = clone(folder / "clone")
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for litter in ("mdmmt/__pycache__/model.pyc", "tests/__pycache__/a.pyc", "demo/found.png"):
        (source / litter).parent.mkdir(parents=True, exist_ok=True)
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


@pytest.mark.slow
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
    assert len(metadata.get_all("Project-URL")) == 2
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    assert entry_points.split() == ["[console_scripts]", "mdmmt", "=", "mdmmt.cli:main"]


@pytest.fixture(scope="module")
def repository() -> set[str]:
    """The files that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so git does not tell which files belong to it")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    return {name for name in listed.stdout.decode().splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def sdist(repository: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"), repository)


@pytest.mark.slow
def test_sdist_holds_the_whole_repository(sdist: Path, repository: set[str]) -> None:
    with tarfile.open(sdist) as archive:
        files = {member.name for member in archive if member.isfile()}
    names = {name.partition("/")[2] for name in files}
    names = {name for name in names if not name.startswith("mdmmt.egg-info/")}
    assert names == repository | {"PKG-INFO", "setup.cfg"}


@pytest.mark.slow
def test_sdist_runs_its_tests(sdist: Path, tmp_path: Path) -> None:
    """All are collected, and those run that look at the files around the package."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for arguments in (["--collect-only"], ["-m", "not slow", "tests/docs", "tests/test_tests.py"]):
        done = subprocess.run(
            [*pytest_there, *arguments], cwd=unpacked, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


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
    makefile = (ROOT / "Makefile").read_text()
    assert "\ntest: lint test-towhee09 test-integrations  ##" in makefile


def test_hosted_ci_runs_what_ci_runs() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs["linux"]["steps"][-1] == {"run": ".ci/run"}
    supported = re.findall(r":: (3\.\d+)", "\n".join(pyproject()["classifiers"]))
    assert jobs["linux"]["strategy"]["matrix"]["python"] == [supported[0], supported[-1]]
    systems = jobs["elsewhere"]["strategy"]["matrix"]["system"]
    assert systems == ["macos-latest", "windows-latest"]
    commands = [step["run"] for step in jobs["elsewhere"]["steps"] if "run" in step]
    assert 'python -m pytest -m "not slow and not towhee and not browser"' in commands


def test_makefile_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.+)$", text, re.M))
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"make ([a-z0-9-]+)", shown.stdout)) == targets
