"""`mdmmt duplicates`."""

from __future__ import annotations

import numpy as np
import pytest

from mdmmt.cli import main
from mdmmt.datasets import Duplicate, Segment, read_duplicates
from mdmmt.features.files import FeatureFile, SourceVideo, write_features
from mdmmt.features.types import ExpertFeatures


def write(folder, name, seed, **versions):
    """Features of CLIP; VIDEO has made none of this video, but has a version."""
    values = np.random.default_rng(seed).normal(size=(10, 20))
    times_s = np.arange(10)[:, None] + [0.0, 1.0]
    file = folder / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    features = {"CLIP": ExpertFeatures(values, times_s)}
    versions = {"CLIP": "1", "VIDEO": "1", **versions}
    write_features(file, FeatureFile(features, SourceVideo(name, None, None), versions))


@pytest.fixture
def folders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for seed in range(5):
        write(a, f"a{seed}.mp4", seed)
        write(b, f"{'deep/' * (seed == 4)}b{seed}.mp4", seed + 4)  # b0 is a4
    return a, b


LINE = "a4.mp4\t0\t10\tb0.mp4\t0\t10\n"


def test_the_list_is_printed_and_the_count_goes_to_stderr(folders, capsys):
    assert main(["duplicates", *map(str, folders)]) == 0
    shown = capsys.readouterr()
    assert shown.out == LINE
    assert "1 duplicate between 5 and 5 videos" in shown.err


def test_the_list_is_written(folders, tmp_path, capsys):
    out = tmp_path / "found.lst"
    assert main(["duplicates", *map(str, folders), "--out", str(out)]) == 0
    assert out.read_text() == LINE
    (found,) = read_duplicates(out)
    assert found == Duplicate(Segment("a4.mp4", 0, 10), Segment("b0.mp4", 0, 10))
    assert "written to" in capsys.readouterr().out


def test_one_folder_is_compared_with_itself(folders, capsys):
    _, b = folders
    write(b, "deep/copy.mp4", 6)
    assert main(["duplicates", str(b), str(b / ".." / "b")]) == 0
    assert capsys.readouterr().out == "b2.mp4\t0\t10\tdeep/copy.mp4\t0\t10\n"


def test_the_threshold_and_the_experts_are_those_asked_for(folders, capsys):
    assert main(["duplicates", *map(str, folders), "--threshold", "10.5"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["duplicates", *map(str, folders), "--experts", "VIDEO"]) == 1
    assert "expected some of the experts that they share: CLIP" in capsys.readouterr().err


@pytest.mark.parametrize("expert", ["CLIP", "VIDEO"])
@pytest.mark.parametrize(
    ("folder", "names"),
    [("a", ["new.mp4"]), ("b", ["new.mp4"]), ("b", [f"b{i}.mp4" for i in range(4)])],
)
def test_features_of_two_versions_are_refused(folders, tmp_path, capsys, expert, folder, names):
    """Within the first folder, within the second, and between the two."""
    for name in names:
        write(tmp_path / folder, name, 30, **{expert: "2"})
    (tmp_path / "b" / "deep" / "b4.mp4.safetensors").unlink()
    assert main(["duplicates", *map(str, folders)]) == 1
    message = capsys.readouterr().err
    assert f"{names[0]!r}" in message and f"the expert {expert} is '2' and '1'" in message


def test_a_folder_without_features_is_named(folders, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert main(["duplicates", str(folders[0]), str(tmp_path / "none")]) == 1
    assert "there is no feature file" in capsys.readouterr().err
