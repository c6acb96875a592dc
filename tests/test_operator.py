"""`ops.video_text_embedding.mdmmt` in real Towhee, each way of resolving it in a fresh process.

The functions called `step_…` run in a child process, several in a row: see `fresh.run_child`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fresh import (
    FOLDER,
    OPERATOR,
    ROOT,
    SENTENCES,
    NotInstalled,
    check_child,
    clone,
    lay_as_hub,
    parsed,
    run_child,
    snapshot,
    video,
    write_model,
)

pytestmark = pytest.mark.towhee
FOLDER_MODULE = "towhee.operator.video_text_embedding.mdmmt.main"
run_child, check_child = partial(run_child, __file__), partial(check_child, __file__)


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
    model = Path(os.environ["TOWHEE_HOME"], FOLDER, "mdmmt", "sample", "model")
    config = json.loads((model / "config.json").read_text())["video"]
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
        ("video", "Hello world.", "video: there is no file 'Hello world.'"),
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


# ---- fixtures -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


# ---- each way of resolving it ---------------------------------------------------------------

BEHAVIOURS = (
    "show",
    "lists",
    "batch",
    "windows",
    "threads",
    "positional_arguments",
    "constructor_errors",
    "call_errors",
    "direct_call",
)
AFTER_IMPORT = (
    "import_ours",
    "published_pipelines",
    "published_pipelines",
    "is_from_registry",
    *BEHAVIOURS,
    "forget_registration",
    "published_pipelines",
    "is_from_folder",
)


@pytest.fixture(scope="module")
def report_after_import(model, tmp_path_factory):
    """First `import mdmmt` and all behaviour, then the folder, in one process."""
    folder = tmp_path_factory.mktemp("after-import")
    lay_as_hub(clone(folder / "a clone"), folder / "towhee")
    return run_child(folder, *AFTER_IMPORT, MODEL=str(model))


@pytest.mark.parametrize("step", dict.fromkeys(AFTER_IMPORT))
def test_after_import(step, report_after_import):
    assert step not in report_after_import["failures"], report_after_import["failures"][step]


def test_after_import_nothing_is_fetched(report_after_import):
    assert not report_after_import["offences"]


def test_from_the_folder_as_the_hub_lays_it(model, tmp_path):
    """From a clone called mdmmt, with weights; and then `import mdmmt` in the same process."""
    source = clone(tmp_path / "mdmmt")
    shutil.copytree(model, source / "weights")
    lay_as_hub(source, tmp_path / "towhee")
    shutil.rmtree(source)
    check_child(
        tmp_path,
        "positional_arguments",  # the factory's; from now on the class is in the registry
        "published_pipelines",
        "published_pipelines",
        "is_from_folder",
        "weights_beside_the_operator",
        "nothing_of_ours_is_imported",
        "import_ours",
        "is_from_registry",
        "published_pipelines",
        installed=False,
        MODEL=str(model),
    )


def test_from_a_clone_that_is_the_folder(model, tmp_path):
    folder = tmp_path / "towhee" / FOLDER
    folder.parent.mkdir(parents=True)
    folder.symlink_to(clone(tmp_path / "my-clone 2"))
    check_child(
        tmp_path,
        "published_pipelines",
        "is_from_folder",
        "nothing_of_ours_is_imported",
        installed=False,
        MODEL=str(model),
    )


@pytest.fixture(scope="module")
def installed_from_wheel(tmp_path_factory):
    """`mdmmt install-operator` by one who has our wheel."""
    folder = tmp_path_factory.mktemp("from-wheel")
    source = clone(tmp_path_factory.mktemp("source") / "clone")
    build = "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    for name in ("__init__.py", "requirements.txt"):  # as some packages leave there by mistake
        (folder / "site" / name).write_text("# not ours\n")
    check_child(
        folder,
        "ours_is_here",
        "install_operator_command",
        PYTHONPATH=str(folder / "site"),
        OURS=str(folder / "site"),
    )
    shutil.rmtree(folder / "site")
    return folder, snapshot(folder / "towhee" / FOLDER)


def test_installed_from_a_wheel(installed_from_wheel, model):
    folder, _ = installed_from_wheel
    check_child(
        folder,
        "published_pipelines",
        "is_from_folder",
        "nothing_of_ours_is_imported",
        installed=False,
        MODEL=str(model),
    )


def test_sample_through_towhee(installed_from_wheel):
    folder, _ = installed_from_wheel
    check_child(folder, "sample", "is_from_folder", installed=False)


def test_installed_from_a_clone(installed_from_wheel, tmp_path):
    """By one who has not installed us, the same files."""
    here = clone(tmp_path / "my-clone 2")
    check_child(here, "ours_is_here", "install_operator_command", OURS=str(here))
    ours, wheels = snapshot(here / "towhee" / FOLDER), dict(installed_from_wheel[1])
    assert ours.keys() == wheels.keys()
    assert ours.pop("requirements.txt") == (ROOT / "requirements.txt").read_bytes()
    assert parsed(wheels.pop("requirements.txt").decode()) == parsed(
        (ROOT / "requirements.txt").read_text()
    )
    digests, wheels_digests = (json.loads(held.pop("MANIFEST.json")) for held in (ours, wheels))
    assert digests.keys() == wheels_digests.keys()
    assert {n for n in digests if digests[n] != wheels_digests[n]} <= {"requirements.txt"}
    assert ours == wheels


def test_mdmmt_is_the_operator_class_and_has_its_documented_signature():
    from mdmmt import MDMMT, mdmmt
    from mdmmt import operator as module

    assert mdmmt is MDMMT is module.MDMMT is module.mdmmt
    parameters = list(inspect.signature(MDMMT).parameters.values())
    first, others = parameters[:5], parameters[5:]
    names = ["modality", "weight_path", "device", "mmtvid_params", "mmttxt_params"]
    assert [p.name for p in first] == names
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in first)
    assert all(p.default is None for p in first[1:])
    assert others and all(p.kind is p.KEYWORD_ONLY for p in others)


def test_the_guard_sees(tmp_path):
    report = run_child(
        tmp_path, "reach_the_network", "start_pip", "import_despite_all", installed=False
    )
    assert not report["failures"]
    assert len(report["offences"]) == 3
