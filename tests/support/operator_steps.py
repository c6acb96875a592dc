"""Steps that run in a fresh process: Towhee's operator, however it is resolved, and what it does.

`fresh.run_child` runs several in a row. This file does not import our package, since it may be
missing there.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import math
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fresh import FOLDER, OPERATOR, ROOT, SENTENCES, NotInstalled, lay_as_hub, video

FOLDER_MODULE = "towhee.operator.video_text_embedding.mdmmt.main"


# ---- steps: which operator it is ------------------------------------------------------------


def step_import_ours():
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, NotInstalled)]
    importlib.import_module("mdmmt")


def step_forget_registration():
    """As if nothing had been imported, so that Towhee turns to its folder."""
    from towhee.runtime.operator_manager.operator_registry import OperatorRegistry

    del OperatorRegistry.REGISTRY[OPERATOR]


def step_is_from_registry():
    assert registered_in() == "mdmmt.operator"


def step_is_from_folder():
    assert registered_in() == f"{FOLDER_MODULE}.mdmmt.operator"
    entry = Path(sys.modules[FOLDER_MODULE].__file__)
    assert entry == Path(os.environ["TOWHEE_HOME"], FOLDER, "__init__.py")


def step_nothing_of_ours_is_imported():
    assert not [name for name in sys.modules if name.partition(".")[0] == "mdmmt"]


def registered_in():
    from towhee.runtime.operator_manager.operator_registry import OperatorRegistry

    return OperatorRegistry.REGISTRY[OPERATOR].__module__


# ---- steps: what it does --------------------------------------------------------------------

answers = []  # of the published pipelines in this process


def step_published_pipelines():
    """Both, and with the same answers each time in this process."""
    vectors = published_pipelines(os.environ["MODEL"], video())
    assert [v.shape for v in vectors] == [(1536,), (1536,)]
    answers.append(vectors)
    np.testing.assert_array_equal(vectors, answers[0])


def step_weights_beside_the_operator():
    np.testing.assert_array_equal(published_pipelines(None, video()), answers[0])


def step_sample():
    config = json.loads((ROOT / "mdmmt/sample/model/config.json").read_text())["video"]
    dims = {expert["name"]: expert["dim"] for expert in config["experts"]}
    text, clip = published_pipelines("sample", video(dims))
    assert text.shape == clip.shape == (len(dims) * config["same_dim"],)


def step_show():
    from towhee import DataCollection

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        DataCollection(pipeline("text")("Hello world.")).show()
    assert "Hello world." in printed.getvalue()
    assert "vec" in printed.getvalue()


def step_lists():
    for modality, items in (("text", SENTENCES), ("video", videos())):
        p = pipeline(modality)
        together = p(items).get()[1]
        assert together.shape == (4, 1536)
        assert_same(together, [p(item).get()[1] for item in items])


def step_batch():
    for modality, items in (("text", SENTENCES), ("video", videos())):
        p = pipeline(modality)
        results = [result.get()[1] for result in p.batch(items)]
        assert_same(results, [p(item).get()[1] for item in items], atol=0)


def step_windows():
    """Their lists go through the operator as batches."""
    from towhee import ops, pipe

    for modality, items in (("text", SENTENCES), ("video", videos())):
        operator = ops.video_text_embedding.mdmmt(modality=modality, weight_path=weights())
        rows = pipe.input("list").flat_map("list", "item", lambda items: items)
        by_two = rows.window("item", "vec", 2, 2, operator).output("vec")(items)
        at_once = rows.window_all("item", "vec", operator).output("vec")(items)
        single = [pipeline(modality)(item).get()[1] for item in items]
        pairs = [by_two.get()[0], by_two.get()[0]]
        assert [pair.shape for pair in pairs] == [(2, 1536), (2, 1536)]
        assert_same(np.concatenate(pairs), single)
        assert_same(at_once.get()[0], single)


def step_threads():
    for modality, items in (("text", SENTENCES), ("video", videos())):
        alone = [pipeline(modality)(item).get()[1] for item in items]
        shared = pipeline(modality)  # its weights are read by the threads' first calls
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda item, p=shared: p(item).get()[1], items * 8))
        assert_same(results, alone * 8, atol=0)


def step_positional_arguments():
    from towhee import ops

    def create(*args):
        return ops.video_text_embedding.mdmmt(*args)

    cut = create("text", weights(), "cpu", {}, {"max_length": 3})("a red ball")  # [CLS] a [SEP]
    plain = create("text", weights(), None, None, None)("a red ball")
    assert np.abs(plain - cut).max() > 1e-3
    with pytest.raises(RuntimeError, match="mmtvid_params has unknown nonsense"):
        create("video", weights(), None, {"nonsense": 1})({})


def step_constructor_errors():
    """They show when the pipe is built."""
    for arguments, sentence in (
        ({"modality": "audio"}, "modality is 'audio', expected 'text', 'video' or 'features'"),
        ({"weight_path": "nowhere.pth"}, "weight_path is 'nowhere.pth', which does not exist"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but torch sees"),
        ({"weight_path": None}, "no weights: give weight_path"),
        ({"device": "cpu", "compiled": True}, "compiled is True and the device is 'cpu'"),
    ):
        with pytest.raises(RuntimeError, match=re.escape(sentence)):
            pipeline(**{"modality": "text", **arguments})


def step_call_errors():
    for modality, given, sentence in (
        ("text", video(), "text is a dict, expected a str or a list of str"),
        ("text", ["a", " "], "text 1 is ' ', expected some words"),
        ("video", "Hello world.", "there is no file 'Hello world.'"),
        ("video", 3, "video is a int, expected a path, the frames"),
    ):
        p = pipeline(modality)
        with pytest.raises(RuntimeError, match=re.escape(sentence)):
            p(given)
        p(SENTENCES[0] if modality == "text" else video())  # and goes on


def step_direct_call():
    from towhee import ops

    def operator(**arguments):
        return ops.video_text_embedding.mdmmt(**{"weight_path": weights(), **arguments})

    vector = operator(modality="text")("Hello world.")
    np.testing.assert_array_equal(vector, pipeline("text")("Hello world.").get()[1])
    with pytest.raises(TypeError, match=r"^text is a dict, expected a str or a list of str$"):
        operator(modality="text")({})


def step_install_operator_command():
    import runpy

    sys.argv = ["mdmmt", "install-operator"]
    with pytest.raises(SystemExit) as end:
        runpy.run_module("mdmmt", run_name="__main__")
    assert not end.value.code


def step_ours_is_here():
    """This process runs the package that the test means."""
    ours = Path(importlib.import_module("mdmmt").__file__)
    assert ours.parent.parent == Path(os.environ["OURS"])


def step_reach_the_network():
    with pytest.raises(PermissionError):
        socket.create_connection(("192.0.2.1", 80))
    with pytest.raises(PermissionError):
        socket.getaddrinfo("towhee.io", 443)


def step_start_pip():
    with pytest.raises(PermissionError):
        subprocess.check_call([sys.executable, "-m", "pip", "--version"])


def step_import_despite_all():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mdmmt.errors")


def published_pipelines(weight_path, video_input_dict):
    """The two pipelines as published, on any device; the vectors of a text and of a video."""
    from towhee import DataCollection, ops, pipe

    p = (
        pipe.input("text")
        .map(
            "text",
            "vec",
            ops.video_text_embedding.mdmmt(modality="text", weight_path=weight_path, device=None),
        )
        .output("text", "vec")
    )
    text = DataCollection(p("Hello world."))[0]["vec"]
    q = (
        pipe.input("video_input_dict")
        .map(
            "video_input_dict",
            "vec",
            ops.video_text_embedding.mdmmt(modality="video", weight_path=weight_path, device=None),
        )
        .output("video_input_dict", "vec")
    )
    clip = q(video_input_dict).get()[1]
    experts = len(video_input_dict["features"])
    assert text.dtype == clip.dtype == np.float32
    assert type(text) is type(clip) is np.ndarray
    assert 0 < np.linalg.norm(text) <= 1 + 1e-5
    assert np.linalg.norm(clip) == pytest.approx(math.sqrt(experts), abs=1e-4)
    return text, clip


def pipeline(modality, **arguments):
    from towhee import ops, pipe

    operator = ops.video_text_embedding.mdmmt(
        **{"modality": modality, "weight_path": weights(), **arguments}
    )
    return pipe.input("x").map("x", "vec", operator).output("x", "vec")


def weights():
    return os.environ["MODEL"]


def videos():
    """Four, of different lengths."""
    return [video(seed=seed, n=n) for seed, n in enumerate((30, 7, 30, 1))]


def assert_same(actual, expected, atol=1e-5):
    """The same vectors in the same order; and they differ, so that the order shows."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
    assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.combinations(expected[:4], 2))


# ---- steps: what it does when files were cut short ----------------------------------------


def step_cut_transfer():
    from towhee import ops

    cached = (Path(os.environ["TOWHEE_HOME"]) / FOLDER).parents[1]
    for _ in range(2):  # the second time nothing is fetched, and it is still cut
        with pytest.raises(RuntimeError) as caught:
            ops.video_text_embedding.mdmmt(modality="text", weight_path="sample")("a red ball")
        assert str(cached / "versions" / "main" / os.environ["CUT"]) in str(caught.value)
        assert f"delete {cached}, try again" in str(caught.value)


def step_cut_files():
    from towhee import ops

    home = Path(os.environ["TOWHEE_HOME"])
    laid = home / FOLDER
    lay_as_hub(Path(os.environ["FOLDER"]), home)  # symbolic links
    for file in files_in(laid):
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


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
