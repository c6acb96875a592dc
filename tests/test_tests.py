"""What the tests promise of themselves: they reach no network, and lie as the package does."""

import socket
from pathlib import Path

import pytest
from fresh import run_child

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "mdmmt"
# Tests of more than one module.
OF_MANY_MODULES = {
    "kernels/test_memory.py",  # flatness over many calls, of all products
    "media/test_clocks.py",  # decoding, and the features and embeddings that come of it
    "media/test_fuzz.py",  # whatever reads a media file
    "weights/test_broken_folders.py",  # whatever reads a model folder
    "test_packaging.py",
    "test_processes.py",
    "test_public_names.py",
    "test_tests.py",
    "test_typing.py",
}
# They test the pages, and the package in environments of their own.
OTHER_FOLDERS = {"clusters", "docs", "integrations", "oracles", "towhee09"}


def test_no_network_blocks_connections():
    for host in ("192.0.2.1", "huggingface.co"):
        with pytest.raises(pytest.fail.Exception, match=host):
            socket.create_connection((host, 443), timeout=1)


@pytest.mark.towhee
def test_run_child_sees_what_is_forbidden(tmp_path):
    report = run_child(
        tmp_path, "reach_the_network", "start_pip", "import_despite_all", installed=False
    )
    assert not report["failures"]
    assert len(report["offences"]) == 3


def test_files_of_tests_are_named_for_a_module_or_a_folder():
    files = {file.relative_to(TESTS) for file in TESTS.rglob("test_*.py")}
    nameless = {
        file.as_posix()
        for file in files
        if file.parts[0] not in OTHER_FOLDERS and not any(map(Path.exists, named_for(file)))
    }
    assert nameless == OF_MANY_MODULES


def named_for(file: Path) -> tuple[Path, Path]:
    """The module and the folder that a file of tests may be named for."""
    path = PACKAGE / file.parent / file.stem.removeprefix("test_")
    return path.with_suffix(".py"), path
