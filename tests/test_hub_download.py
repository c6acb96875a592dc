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

pytestmark = [pytest.mark.slow, pytest.mark.towhee]

HERE = Path(__file__)
TREE = "/towhee-api/v1/repos/video-text-embedding/mdmmt/tree"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory) -> Path:
    from mdmmt.cli import main  # not above: a child imports this file and must not have it

    folder = tmp_path_factory.mktemp("hub") / "folder"
    assert main(["hub-folder", str(folder)]) == 0
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


def test_hub_operator_runs_and_runs_again_offline(hub, hub_folder, tmp_path):
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


def test_hub_operator_reports_a_cut_transfer_and_recovers_as_it_says(hub, tmp_path):
    address, asked, cut = hub
    env = {"installed": False, "pip": True, "TOWHEE_URL": address}
    for name in ("mdmmt/features/tokens.py", "__init__.py"):
        cut.add(name)
        check_child(HERE, tmp_path, "cut_transfer", CUT=name, **env)
        cut.clear()
        shutil.rmtree(tmp_path / "towhee" / FOLDER.parents[1])  # as the message says
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


def test_hub_operator_reports_every_file_that_is_cut(hub_folder, tmp_path):
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
