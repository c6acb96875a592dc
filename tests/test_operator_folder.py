"""The operator folder as files: what it holds, where it goes, and that nothing is lost."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import threading
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest
from fresh import FOLDER, OPERATOR, ROOT, check_child, clone, lay_as_hub, snapshot
from operator_steps import files_in

from mdmmt import cli, operator_folder
from mdmmt.errors import InputError
from mdmmt.experts import LIGHT_EXPERTS, PRETRAINED_EXPERTS, expert_classes
from mdmmt.operator_folder import install_operator, write_operator_folder
from mdmmt.storage import folders
from mdmmt.weights.layout import MODEL_FOLDER_FILES

# Bytes. The folder has 3.50 MB, of which the sample's weights are 3.02 MB.
MAX_SIZE = 3_600_000
MAX_SIZE_WITHOUT_WEIGHTS = 550_000  # with the page for the hub, listings, VIDEO by OpenVINO


def test_entry_equals_the_root_init():
    assert read("__init__.py") == operator_folder.ENTRY.read_text(encoding="utf-8")


def test_entry_fits_a_packet_and_begins_with_its_comment():
    """A file that is cut anywhere in its first half holds no code, so Towhee takes the stand-in."""
    entry = operator_folder.ENTRY.read_bytes()
    assert len(entry) <= 1460
    first_half = entry[: len(entry) // 2].decode().splitlines()
    assert all(line.startswith("#") for line in first_half)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """This package in a clone of its own, with what a working copy leaves in it."""
    package = clone(tmp_path / "clone") / "mdmmt"
    for litter in ("__pycache__/model.nbi", "old.pyc", ".model.py.swp", ".cache/x.py"):
        (package / litter).parent.mkdir(exist_ok=True)
        (package / litter).write_text("litter")
    monkeypatch.setattr(operator_folder, "PACKAGE", package)
    return package


def test_write_operator_folder_writes_only_what_the_operator_needs(package, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert cli.main(["hub-folder", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"operator folder written to {out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    content = snapshot(out)
    manifest = json.loads(content.pop("MANIFEST.json"))
    assert manifest == {name: sha256(data).hexdigest() for name, data in content.items()}
    assert content.pop("README.md") == operator_folder.README.read_bytes()
    assert content.pop("mdmmt.py") == operator_folder.STAND_IN.read_bytes()
    sample = {f"mdmmt/sample/model/{name}" for name in MODEL_FOLDER_FILES}
    sample = {name for name in sample if (ROOT / name).exists()}
    assert "mdmmt/sample/model/model.safetensors" in sample
    of_package = ("lazy.py", "registration.py")  # which its __init__.py imports at once
    modules = imported_by(ROOT / "mdmmt", "operator.py", *of_package, *expert_files())
    packages = {str(PurePosixPath(file).with_name("__init__.py")) for file in modules}
    needed = {f"mdmmt/{file}" for file in modules | packages | {"weights/model_card.md"}}
    papers = {"LICENSE", "NOTICE", "requirements.txt"}
    assert content.keys() == {"__init__.py", *papers, *needed, *sample}
    for name, data in content.items():
        assert data == (ROOT / name).read_bytes()


def test_write_operator_folder_keeps_to_its_size(package, tmp_path):
    write_operator_folder(tmp_path / "out")
    sizes = {name: len(data) for name, data in snapshot(tmp_path / "out").items()}
    assert sum(sizes.values()) <= MAX_SIZE
    del sizes["mdmmt/sample/model/model.safetensors"]
    assert sum(sizes.values()) <= MAX_SIZE_WITHOUT_WEIGHTS


def expert_files():
    """The modules of the experts, which the registry imports by name."""
    modules = {c.__module__ for c in expert_classes(LIGHT_EXPERTS + PRETRAINED_EXPERTS).values()}
    return [f"{module.removeprefix('mdmmt.').replace('.', '/')}.py" for module in sorted(modules)]


def imported_by(package, *files):
    """These files of a package and all that they import of it, somewhere in them."""
    found, ahead = {"__init__.py"}, list(files)
    while ahead:
        file = ahead.pop()
        if file in found or not (package / file).is_file():
            continue
        found.add(file)
        for node in ast.walk(ast.parse((package / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = PurePosixPath(file).parents[node.level - 1]
                base = folder / (node.module or "").replace(".", "/")
                for path in (base, *(base / alias.name for alias in node.names)):
                    ahead += [f"{path}.py", str(path / "__init__.py")]
    return found


def test_write_operator_folder_obeys_the_umask(package, tmp_path):
    (tmp_path / "usual").mkdir()
    write_operator_folder(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_write_operator_folder_replaces_links_of_the_hub(package, tmp_path):
    source = clone(tmp_path / "old")
    (source / "mdmmt" / "gone.py").write_text("# of an older version\n")
    (source / "tests").mkdir()
    (source / "tests" / "test.py").write_text("# the hub sends all that is in a repository\n")
    (source / "weights").mkdir()
    (source / "weights" / "mdmmt_3mod.pth").write_text("weights")
    lay_as_hub(source, tmp_path)
    folder = tmp_path / FOLDER
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "__init__.pyc").write_text("cache")
    files = folder.parents[1] / "files"
    before = snapshot(files)
    write_operator_folder(folder)
    assert snapshot(files) == before
    content = snapshot(folder)
    weights_link = content.pop("weights/mdmmt_3mod.pth")
    assert Path(weights_link).read_text() == "weights"
    write_operator_folder(tmp_path / "new")
    assert content == snapshot(tmp_path / "new")
    assert [path.name for path in folder.parent.iterdir()] == ["main"]  # nothing left beside


@pytest.mark.parametrize("present", ["nothing", "empty", "weights", "operator"])
def test_write_operator_folder_replaces_an_operator_and_keeps_weights(package, tmp_path, present):
    out = tmp_path / "out"
    if present != "nothing":
        out.mkdir()
    if present == "operator":
        write_operator_folder(out)
        (out / "mdmmt" / "model.py").write_text("old")
    if present in ("weights", "operator"):
        (out / "weights").mkdir()
        (out / "weights" / "mdmmt_3mod.pth").write_text("weights")
    write_operator_folder(out)
    kept = out / "weights" / "mdmmt_3mod.pth"
    assert kept.exists() == (present in ("weights", "operator"))
    assert (out / "mdmmt" / "model.py").read_bytes() == (package / "model.py").read_bytes()


@pytest.mark.parametrize("stranger", ["file", "link", "clone", "clones", "documents"])
def test_write_operator_folder_refuses_other_folders(package, tmp_path, stranger):
    out = tmp_path / "out"
    if stranger == "file":
        out.write_text("mine")
    if stranger == "link":
        (tmp_path / "empty").mkdir()
        out.symlink_to(tmp_path / "empty")
    if stranger == "clone":
        clone(out)
        (out / ".git").mkdir()
        (out / ".git" / "HEAD").write_text("mine")
    if stranger == "clones":
        clone(out / "mdmmt")
    if stranger == "documents":
        (out / "letters").mkdir(parents=True)
        (out / "letters" / "one").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="is not an operator folder: replacing it would lose"):
        write_operator_folder(out)
    assert snapshot(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    ["copyfile", *(f"rename {i}" for i in range(1, 5)), "exchange 1", "exchange 2"],
)
@pytest.mark.parametrize("replacing", [True, False])
def test_write_operator_folder_loses_nothing_on_failure(
    package, tmp_path, monkeypatch, call, replacing
):
    out = tmp_path / "place" / "out"
    if replacing:
        write_operator_folder(out)
        (out / "weights").mkdir()
        (out / "weights" / "mdmmt_3mod.pth").write_text("weights")
        (out / "mdmmt" / "model.py").write_text("old")
    else:
        out.parent.mkdir()
        if call not in ("copyfile", "rename 1"):
            return  # only one rename where there is nothing to replace
    before = snapshot(tmp_path)
    name, _, number = call.partition(" ")
    module = {"copyfile": shutil, "rename": os, "exchange": folders}[name]
    name = {"exchange": "_exchange_at_once"}.get(name, name)
    original, calls = getattr(module, name), []
    if module is os:  # as on a system that cannot exchange folders in one operation
        monkeypatch.setattr(folders, "_exchange_at_once", lambda *_: False)

    def fail(*args, **kwargs):
        calls.append(args)
        if len(calls) == int(number or 5):
            raise OSError("no space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(OSError, match="no space left"):
        write_operator_folder(out)
    assert snapshot(tmp_path) == before
    assert [path.name for path in out.parent.iterdir()] == (["out"] if replacing else [])


def test_write_operator_folder_needs_a_clone_or_an_installation(package, tmp_path, monkeypatch):
    (package.parent / "__init__.py").unlink()
    monkeypatch.setattr(operator_folder, "REPOSITORY", "mdmmt-that-nobody-installed")
    with pytest.raises(InputError, match="run this from a clone, or install mdmmt with pip"):
        write_operator_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["default", "variable", "call"])
def test_install_operator_writes_where_towhee_looks(package, tmp_path, monkeypatch, way):
    from towhee.hub import cache_manager

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TOWHEE_HOME", raising=False)
    if way == "variable":
        monkeypatch.setenv("TOWHEE_HOME", str(tmp_path / "variable"))
    if way == "call":
        monkeypatch.setattr(cache_manager, "_HUB_ROOT", str(tmp_path / "call"))
    folder = install_operator()
    assert folder == tmp_path / way.replace("default", ".towhee") / FOLDER
    manager = cache_manager.CacheManager()
    found = manager.get_operator(OPERATOR, "main", install_reqs=True, latest=False)
    assert found == folder
    assert (folder / "__init__.py").is_file()


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_requirements_are_spelt_as_towhee_reads_them():
    """Towhee starts pip for the last line unless it is empty or names what is installed."""
    import pkg_resources

    *lines, last = read("requirements.txt").split("\n")
    assert last == ""
    installed = {item.project_name for item in pkg_resources.working_set}
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+[<>=!~][^#;\[\] ]*", line), line
        name = re.split(r"(~|>|<|=|!|\]|\[| )", line)[0].replace("_", "-")
        assert name in installed


# Towhee's own downloader and a hub on this machine that serves the folder

TREE = "/towhee-api/v1/repos/video-text-embedding/mdmmt/tree"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "folder"
    assert cli.main(["hub-folder", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def hub(hub_folder):
    """A server of the folder that answers the hub's two requests.

    Gives its address, the paths that were requested, and a set to fill with files that it cuts in
    half and sends without a length, as a lost connection leaves them.
    """
    asked: list[str] = []
    cut: set[str] = set()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(path := unquote(urlsplit(self.path).path))
            if path == TREE:
                content = json.dumps([entry(file) for file in files_in(hub_folder)]).encode()
            else:
                content = (hub_folder / path.removeprefix("/blob/")).read_bytes()
            self.send_response(200)
            if path.removeprefix("/blob/") in cut:
                content = content[: len(content) // 2]
            else:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    def entry(file: Path) -> dict[str, str]:
        path = file.relative_to(hub_folder).as_posix()
        sha = sha1(file.read_bytes() + path.encode()).hexdigest()
        return {"path": path, "type": "blob", "sha": sha, "downloadLink": f"{address}/blob/{path}"}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield address, asked, cut
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.towhee
def test_operator_folder_on_a_hub_runs_and_runs_again_offline(hub, hub_folder, tmp_path):
    address, asked, _ = hub
    report = check_child(
        tmp_path,
        "sample",
        "nothing_of_ours_is_imported",
        installed=False,
        pip=True,
        TOWHEE_URL=address,
    )
    assert sorted(asked) == sorted(
        [
            TREE,
            *(f"/blob/{file.relative_to(hub_folder).as_posix()}" for file in files_in(hub_folder)),
        ]
    )
    assert len(report["pip_starts"]) == 1  # Towhee's own, of requirements.txt, after a download
    laid = snapshot(tmp_path / "towhee" / FOLDER)
    assert all(isinstance(target, str) for target in laid.values())  # symbolic links
    asked.clear()
    report = check_child(
        tmp_path,
        "sample",
        "nothing_of_ours_is_imported",
        installed=False,
        TOWHEE_URL="http://127.0.0.1:9",
    )
    assert not asked and not report["pip_starts"]


@pytest.mark.slow
@pytest.mark.towhee
def test_operator_folder_reports_a_cut_transfer_and_recovers_as_it_says(hub, tmp_path):
    address, asked, cut = hub
    env = {"installed": False, "pip": True, "TOWHEE_URL": address}
    for name in ("mdmmt/features/tokens.py", "__init__.py"):
        cut.add(name)
        check_child(tmp_path, "cut_transfer", CUT=name, **env)
        cut.clear()
        shutil.rmtree(tmp_path / "towhee" / FOLDER.parents[1])  # as the message says
        asked.clear()
    check_child(tmp_path, "sample", "nothing_of_ours_is_imported", **env)
    assert f"/blob/{name}" in asked


@pytest.mark.slow
@pytest.mark.towhee
def test_operator_folder_reports_every_file_that_is_cut(hub_folder, tmp_path):
    """Each file cut in half and cut to nothing, all in one process, before anything heavy."""
    check_child(tmp_path, "cut_files", installed=False, FOLDER=str(hub_folder))
