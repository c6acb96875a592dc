"""Towhee's own downloader against a loopback hub that serves the folder of `mdmmt hub-folder`."""

from __future__ import annotations

import json
import os
import shutil
import threading
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from fresh import FOLDER, check_child, lay_as_hub, snapshot, video

HERE = Path(__file__)
TREE = "/towhee-api/v1/repos/video-text-embedding/mdmmt/tree"
BUDGET = 4_000_000  # bytes of the folder to upload


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory) -> Path:
    from mdmmt.cli import main  # not above: a child imports this file and must not have it

    folder = tmp_path_factory.mktemp("hub") / "folder"
    assert main(["hub-folder", str(folder)]) == 0
    return folder


@pytest.fixture
def hub(hub_folder):
    """Serves the folder with the hub's two requests; its address, the paths asked for, and a set
    of those files that are cut short and sent without a length, as a lost connection leaves them.
    """
    asked: list[str] = []
    cut: set[str] = set()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(path := unquote(urlsplit(self.path).path))
            if path == TREE:
                content = json.dumps([entry(file) for file in files(hub_folder)]).encode()
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


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_downloaded_operator_runs_and_runs_again_offline(hub, hub_folder, tmp_path):
    address, asked, _ = hub
    report = check_child(HERE, tmp_path, "sample", installed=False, pip=True, TOWHEE_URL=address)
    assert sorted(asked) == sorted(
        [TREE, *(f"/blob/{file.relative_to(hub_folder).as_posix()}" for file in files(hub_folder))]
    )
    assert len(report["pip_starts"]) == 1  # Towhee's own, of requirements.txt, after a download
    laid = snapshot(tmp_path / "towhee" / FOLDER)
    assert all(isinstance(target, str) for target in laid.values())  # symbolic links
    asked.clear()
    report = check_child(HERE, tmp_path, "sample", installed=False, TOWHEE_URL="http://127.0.0.1:9")
    assert not asked and not report["pip_starts"]


@pytest.mark.parametrize("name", ["mdmmt/features.py", "__init__.py"])
def test_a_transfer_that_was_cut_is_told_and_mended_as_told(hub, name, tmp_path):
    address, asked, cut = hub
    cut.add(name)
    env = {"installed": False, "pip": True, "TOWHEE_URL": address, "CUT": name}
    check_child(HERE, tmp_path, "cut_transfer", **env)
    cut.clear()
    shutil.rmtree(tmp_path / "towhee" / FOLDER.parents[1])  # as the sentence says
    asked.clear()
    check_child(HERE, tmp_path, "sample", **env)
    assert f"/blob/{name}" in asked


def step_cut_transfer():
    from towhee import ops

    cached = (Path(os.environ["TOWHEE_HOME"]) / FOLDER).parents[1]
    for _ in range(2):  # the second time nothing is fetched, and it is still cut
        with pytest.raises(RuntimeError) as caught:
            ops.video_text_embedding.mdmmt(modality="text", weight_path="sample")("a red ball")
        assert str(cached / "versions" / "main" / os.environ["CUT"]) in str(caught.value)
        assert f"delete {cached}, try again" in str(caught.value)


def test_the_entry_fits_a_packet_and_a_cut_in_it_is_told():
    """What is cut anywhere in its upper half has no code yet, so Towhee executes the stand-in."""
    from mdmmt.operator_folder import ENTRY

    entry = ENTRY.encode()
    assert len(entry) <= 1460
    upper = entry[: len(entry) // 2].decode().splitlines()
    assert all(line.startswith("#") for line in upper)


def step_sample():
    """Both pipelines on the sample model, without our distribution."""
    import sys

    from towhee import ops, pipe

    vectors = {}
    dims = json.loads((Path(__file__).parents[1] / "mdmmt/sample/model/config.json").read_text())[
        "video"
    ]["experts"]
    inputs = {
        "text": "A red ball moves left.",
        "video": video({expert["name"]: expert["dim"] for expert in dims}),
    }
    for modality, value in inputs.items():
        operator = ops.video_text_embedding.mdmmt(modality=modality, weight_path="sample")
        pipeline = pipe.input("x").map("x", "vec", operator).output("vec")
        vectors[modality] = pipeline(value).get()[0]
        assert vectors[modality].shape == (384,) and vectors[modality].dtype == np.float32
    assert np.linalg.norm(vectors["video"]) == pytest.approx(3**0.5, abs=1e-4)
    assert "mdmmt" not in sys.modules


def test_folder_keeps_to_its_budget(hub_folder):
    assert sum(file.stat().st_size for file in files(hub_folder)) <= BUDGET


def test_a_file_cut_short_is_told(hub_folder, tmp_path):
    """Each file cut in half and cut to nothing, all in one process, before anything heavy."""
    check_child(HERE, tmp_path, "cut_files", installed=False, FOLDER=str(hub_folder))


def step_cut_files():
    import sys

    from towhee import ops

    home = Path(os.environ["TOWHEE_HOME"])
    laid = home / FOLDER
    lay_as_hub(Path(os.environ["FOLDER"]), home)  # symbolic links
    for file in files(laid):
        whole = file.read_bytes()
        for length in {len(whole) // 2, 0} - {len(whole)}:
            if file.name == "requirements.txt" and length:
                continue  # Towhee hands it to pip before any file of ours is executed
            file.write_bytes(whole[:length])
            with pytest.raises(RuntimeError) as caught:
                ops.video_text_embedding.mdmmt(modality="text", weight_path="sample")("a red ball")
            message = str(caught.value)
            case = f"{file.relative_to(laid)} cut to {length}: {message}"
            assert "is cut short" in message and str(file) in message, case
            assert f"delete {laid.parents[1]}, try again" in message, case
        file.write_bytes(whole)
    assert "torch" not in sys.modules
    assert ops.video_text_embedding.mdmmt(modality="text", weight_path="sample")("x").shape == (
        384,
    )
