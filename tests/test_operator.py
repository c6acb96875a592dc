"""The operator: its arguments and inputs, what it does with a bad one, and each way to resolve it.

What runs in real Towhee in a fresh process lies in tests/support/operator_steps.py.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from fresh import (
    FOLDER,
    ROOT,
    check_child,
    clone,
    lay_as_hub,
    parsed,
    run_child,
    snapshot,
    write_model,
)
from media import towhee_frames
from towhee import ops, pipe

import mdmmt
from mdmmt.errors import InputError, WeightsError

BAD_TEXTS = ["", " \n", None, 3, "\ud800"]


def test_mdmmt_is_the_operator_class_and_has_its_documented_signature():
    assert mdmmt.mdmmt is mdmmt.MDMMT is mdmmt.operator.MDMMT is mdmmt.operator.mdmmt
    parameters = list(inspect.signature(mdmmt.MDMMT).parameters.values())
    first, others = parameters[:5], parameters[5:]
    names = ["modality", "weight_path", "device", "mmtvid_params", "mmttxt_params"]
    assert [p.name for p in first] == names
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in first)
    assert all(p.default is None for p in first[1:])
    assert others and all(p.kind is p.KEYWORD_ONLY for p in others)


def test_mdmmt_tells_a_notebook_all_its_arguments():
    """`mdmmt.mdmmt?` shows the docstrings of the class and of its constructor."""
    text = inspect.getdoc(mdmmt.mdmmt)
    for name in inspect.signature(mdmmt.mdmmt).parameters:
        assert re.search(rf"^ {{4}}(\w+, )?{name}(, \w+)*: ", text, re.M), name
    assert inspect.getdoc(mdmmt.mdmmt.__init__).startswith("Prepare the operator")  # not Towhee's


WITHOUT_TOWHEE = """
import sys
class NoTowhee:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "towhee":
            raise ModuleNotFoundError("No module named 'towhee'")
sys.meta_path.insert(0, NoTowhee())
from mdmmt import *
import mdmmt
from mdmmt.cli import main
model = mdmmt.load("sample", "cpu")
print(model.encode_text("a red ball").shape, mdmmt.MDMMT is mdmmt.mdmmt is mdmmt.operator.mdmmt)
assert "Embeds texts or videos" in mdmmt.mdmmt.__doc__
try:
    mdmmt.mdmmt(modality="text", weight_path="sample")
except ImportError as error:
    print(type(error).__name__, error)
for command in (["info"], ["install-operator"], ["demo", "--out", "demo"]):
    print(command[0], main(command))
"""


@pytest.mark.slow
def test_package_works_without_towhee_and_the_operator_says_what_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TOWHEE], cwd=tmp_path, capture_output=True, text=True
    )
    needs = "needs packages that are not installed: pip install mdmmt"
    said = "runs in Towhee (No module named 'towhee'), so it " + needs
    assert done.returncode == 0, done.stderr
    first, second, *others = done.stdout.splitlines()
    assert first == "(384,) True" and second == f"MissingDependency the operator {said}"
    assert others[-3:] == ["info 0", "install-operator 1", "demo 1"]
    errors = [f"mdmmt: Towhee's operator folder {needs}", f"mdmmt: the demo {said}"]
    assert done.stderr.splitlines() == errors
    assert not list(tmp_path.iterdir())


# ---- files, features and frames -------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


def operator(**options):
    return ops.video_text_embedding.mdmmt(weight_path="sample", device="cpu", **options)


def test_operator_takes_a_path(model, short):
    p = pipe.input("path").map("path", "vec", operator(modality="video")).output("vec")
    for path in (short, str(short)):
        np.testing.assert_array_equal(p(path).get()[0], model.encode_video(short))


def test_operator_gives_features_alone(model, short):
    p = (
        pipe.input("path")
        .map("path", "features", operator(modality="features", experts=["frame"]))
        .map("features", "vec", operator(modality="video"))
        .output("features", "vec")
    )
    features, vector = p(short).get()
    assert set(features["features"]) == {"frame"}
    np.testing.assert_array_equal(vector, model.encode_video(features))


@pytest.mark.slow
def test_operator_gives_windows_to_flat_map(model, long):
    p = (
        pipe.input("path")
        .flat_map(
            "path", ("start_s", "end_s", "vec"), operator(modality="video", segments="windows")
        )
        .output("start_s", "end_s", "vec")
    )
    result = p(str(long))
    found = model.encode_segments(long)
    rows = [result.get() for _ in range(result.size)]
    assert [row[:2] for row in rows] == found.spans_s.tolist()
    np.testing.assert_allclose([row[2] for row in rows], found.vectors, atol=1e-6)


def test_operator_takes_frames_of_a_window(model, short):
    p = (
        pipe.input("path")
        .flat_map("path", "frame", towhee_frames)
        .window_all("frame", "vec", operator(modality="video"))
        .output("vec")
    )
    np.testing.assert_array_equal(p(short).get()[0], model.encode_video(towhee_frames(short)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modality": "text", "segments": "windows"}, "segments need modality='video', not 'text'"),
        ({"modality": "video", "window_s": 3.0}, "for segments='windows'"),
        ({"modality": "sound"}, "'text', 'video' or 'features'"),
    ],
)
def test_operator_refuses_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        mdmmt.MDMMT(weight_path="sample", device="cpu", **options)


# ---- an input that cannot be used -----------------------------------------------------------


def forgiving(modality="text", **options):
    options = {"weight_path": "sample", "device": "cpu", "on_error": "none", **options}
    return mdmmt.operator.MDMMT(modality, **options)


@pytest.mark.parametrize("bad", [*BAD_TEXTS, []])
def test_operator_on_error_none_gives_none_for_a_bad_text(bad, caplog):
    assert forgiving()(bad) is None
    assert [r.levelno for r in caplog.records if r.name == "mdmmt.operator"] == [logging.ERROR]


def test_operator_on_error_none_gives_rows_of_nan_in_a_list(caplog):
    embed = forgiving()
    vectors = embed(["a ball", *BAD_TEXTS, "a star"])
    assert np.isnan(vectors[1:-1]).all()
    np.testing.assert_allclose(vectors[[0, -1]], embed(["a ball", "a star"]), atol=1e-6)
    assert "text 1: text is ''" in caplog.text
    assert np.isnan(embed(["", " "])).all()


@pytest.mark.slow
def test_operator_on_error_none_takes_a_generator(sample_clips, tmp_path):
    clip = sample_clips(1, seed=0)[0].path
    given = [clip, tmp_path / "none.mp4"]
    vectors = forgiving(modality="video")(path for path in given)
    assert vectors.shape == (2, 384) and np.isnan(vectors).all(axis=1).tolist() == [False, True]
    vectors = forgiving(modality="text")(text for text in ["a red ball", ""])
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True]
    assert forgiving(modality="video")(towhee_frames(clip)).shape == (384,)


def test_operator_on_error_none_leaves_bad_videos_out(sample_clips, tmp_path, caplog):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad = [tmp_path / "bad.mp4", tmp_path / "missing.mp4", {"a": 1}, 7]
    good = sample_clips(1, 0)[0].path
    embed, cut = forgiving("video"), forgiving("video", segments="windows")
    for one in bad:
        assert embed(one) is None
        assert cut(one) == []
        assert forgiving("features")(one) is None
    vectors = embed([*bad, good])
    assert np.isnan(vectors[:-1]).all()
    np.testing.assert_allclose(vectors[-1], embed(good), atol=1e-6)


def test_operator_on_error_none_still_raises_missing_weights(tmp_path, monkeypatch):
    embed = forgiving()

    def missing(*_):
        raise WeightsError("the weights are gone")

    monkeypatch.setattr(embed.model, "encode_text", missing)
    with pytest.raises(WeightsError):
        embed("a ball")
    with pytest.raises(WeightsError):
        embed(["a ball", "a star"])


def test_operator_on_error_refuses_another_word():
    with pytest.raises(InputError, match="on_error is 'ignore', expected 'raise' or 'none'"):
        forgiving(on_error="ignore")


@pytest.mark.towhee
def test_operator_on_error_in_pipelines(caplog):
    def embed(on_error):
        one = ops.video_text_embedding.mdmmt(
            modality="text", weight_path="sample", device="cpu", on_error=on_error
        )
        return pipe.input("t").map("t", "v", one).output("v")

    results = embed("none").batch(["a ball", "", "a star"])
    # Towhee gives None for a row that holds nothing else.
    assert [result.get() is None for result in results] == [False, True, False]
    caplog.clear()
    with pytest.raises(RuntimeError, match="expected some words"):
        embed("raise")("")
    records = [r for r in caplog.records if r.name == "mdmmt.operator"]
    assert "expected some words" in records[0].getMessage()


# ---- each way to resolve it, in fresh processes ---------------------------------------------


@pytest.fixture(scope="module")
def written_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


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
def report_after_import(written_model, tmp_path_factory):
    """First `import mdmmt` and all behaviour, then the folder, in one process."""
    folder = tmp_path_factory.mktemp("after-import")
    lay_as_hub(clone(folder / "a clone"), folder / "towhee")
    return run_child(folder, *AFTER_IMPORT, MODEL=str(written_model))


@pytest.mark.towhee
@pytest.mark.parametrize("step", dict.fromkeys(AFTER_IMPORT))
def test_operator_after_an_import(step, report_after_import):
    assert step not in report_after_import["failures"], report_after_import["failures"][step]


@pytest.mark.towhee
def test_operator_fetches_nothing_after_an_import(report_after_import):
    assert not report_after_import["offences"]


@pytest.mark.towhee
def test_operator_runs_from_the_folder_as_the_hub_lays_it(written_model, tmp_path):
    """From a clone called mdmmt, with weights; and then `import mdmmt` in the same process."""
    source = clone(tmp_path / "mdmmt")
    shutil.copytree(written_model, source / "weights")
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
        MODEL=str(written_model),
    )


@pytest.mark.towhee
def test_operator_runs_from_a_clone_that_is_the_folder(written_model, tmp_path):
    folder = tmp_path / "towhee" / FOLDER
    folder.parent.mkdir(parents=True)
    folder.symlink_to(clone(tmp_path / "my-clone 2"))
    check_child(
        tmp_path,
        "published_pipelines",
        "is_from_folder",
        "nothing_of_ours_is_imported",
        installed=False,
        MODEL=str(written_model),
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


@pytest.mark.towhee
def test_operator_runs_as_it_was_installed_from_a_wheel(installed_from_wheel, written_model):
    folder, _ = installed_from_wheel
    check_child(
        folder,
        "published_pipelines",
        "is_from_folder",
        "nothing_of_ours_is_imported",
        installed=False,
        MODEL=str(written_model),
    )


@pytest.mark.towhee
def test_operator_runs_the_sample_without_an_import(installed_from_wheel):
    folder, _ = installed_from_wheel
    check_child(folder, "sample", "is_from_folder", installed=False)


@pytest.mark.towhee
def test_install_operator_writes_the_same_files_from_a_clone(installed_from_wheel, tmp_path):
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


@pytest.mark.parametrize("call", ["train", "setup_trainer"])
def test_training_names_the_command(tiny_folder, call):
    operator = mdmmt.MDMMT("text", str(tiny_folder), "cpu")
    with pytest.raises(InputError, match="`mdmmt train` does"):
        getattr(operator, call)()
    with pytest.raises(InputError, match="`mdmmt train` does"):
        _ = operator.trainer
