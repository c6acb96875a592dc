"""A library with its page on a server of this process."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time

import pytest

import mdmmt

NASTY = "<img src=x onerror=\"document.title='run'\"> ${document.title='run'} {{1}} #1 50%.mp4"
CLIPS = 6


@pytest.fixture(scope="session")
def library(sample_clips, tmp_path_factory):
    """Clips in windows of a second; one of them has an odd name."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
    from mdmmt.app.library import Library
    from mdmmt.search import Index, index_files

    folder = tmp_path_factory.mktemp("library")
    (folder / "clips").mkdir()
    metadata = {}
    for number, clip in enumerate(sample_clips(CLIPS, 11)):
        path = folder / "clips" / (NASTY if number == 0 else f"{number}.mp4")
        shutil.copy(clip.path, path)
        metadata[str(path)] = {"number": number}
    model = mdmmt.load("sample", "cpu")
    with Index.open(folder / "library.db", model) as index:
        outcomes = list(index_files(index, model, [folder / "clips"], 1.0, 1.0, metadata))
        assert not [outcome.error for outcome in outcomes if outcome.error]
    database = str(folder / "library.db")
    library = Library(database, Index.open(database, model, read_only=True), model)
    yield library
    library.close()


@pytest.fixture
def make_library():
    """Make a library with a new database."""
    from mdmmt.app.library import Library
    from mdmmt.search import Index

    with contextlib.ExitStack() as stack:

        def make(database, model):
            Index.open(database, model).close()
            index = Index.open(database, model, read_only=True)
            library = Library(str(database), index, model)
            stack.callback(library.close)
            return library

        yield make


@pytest.fixture(scope="session")
def address(library, tmp_path_factory):
    """Where the page is."""
    from mdmmt.app.server import make_server

    server = make_server(library, "127.0.0.1", tmp_path_factory.mktemp("uploads"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()
