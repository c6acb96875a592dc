"""Feature files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from feature_files import content, same
from safetensors.numpy import load_file, save_file

from mdmmt.errors import InputError
from mdmmt.features import files as feature_files
from mdmmt.features.files import (
    FeatureFolder,
    read_features,
    write_features,
)


def test_read_features_reads_what_write_features_wrote(tmp_path):
    write_features(str(tmp_path / "a.safetensors"), content())
    read = read_features(str(tmp_path / "a.safetensors"))
    assert same(read.features, content().features)
    assert (read.source, read.versions) == (content().source, content().versions)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_write_features_lets_others_read_the_file(tmp_path):
    """Its names are documented, so that a trainer needs only safetensors."""
    write_features(tmp_path / "a.safetensors", content())
    tensors = load_file(tmp_path / "a.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "features.frame": (3, 102),
        "times.frame": (3, 2),
    }
    (tmp_path / "plain").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "a.safetensors")}
    assert len(modes) == 1  # readable for whom any new file is


@pytest.mark.parametrize(
    ("tensors", "header", "words"),
    [
        ({"x": np.zeros(2)}, None, "format None"),
        ({}, {"format": feature_files.FORMAT}, "damaged header"),
        ({}, {"format": feature_files.FORMAT, "experts": "[", "source": "{}"}, "damaged header"),
        ({}, {"experts": '{"../evil": "1"}'}, "damaged header"),
        ({}, {"experts": "[5]"}, "damaged header"),
        ({}, {"source": '{"name": 5, "size_bytes": 1, "sha256": "0"}'}, "damaged header"),
        ({"features.frame": np.zeros((2, 3)), "times.frame": np.zeros((2, 2))}, "good", "fit"),
        ({"features.frame": np.zeros((2, 3))}, "good", "frame do not fit"),
        ({"features.frame": np.zeros((2, 3)), "times.frame": np.zeros((3, 2))}, "good", "fit"),
        ({"features.frame": np.zeros((0, 3)), "times.frame": np.zeros((0, 2))}, "good", "fit"),
        ({"features.other": np.zeros((2, 3))}, "good", "features.other.* none of its"),
    ],
)
def test_read_features_refuses_other_files(tensors, header, words, tmp_path):
    file = tmp_path / "a.safetensors"
    source = {"name": "a", "size_bytes": 1, "sha256": "0"}
    good = {
        "format": feature_files.FORMAT,
        "source": json.dumps(source),
        "experts": json.dumps({"frame": "1"}),
    }
    if header == "good":
        header = good
    elif header is not None and "format" not in header:
        header = good | header
    save_file(tensors, file, header)
    with pytest.raises(InputError, match=words) as caught:
        read_features(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_feature_folder_knows_videos_by_their_names(tmp_path):
    for i, name in enumerate(["a.mp4", "films/1_Film_00.01.02.003.avi", "x/b.mp4", "y/b.mp4"]):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_features(path, content(name, n=i + 1))
    folder = FeatureFolder(tmp_path)
    assert {key: len(folder[key]["frame"]) for key in folder if key not in ("b", "b.mp4")} == {
        **dict.fromkeys(("a.mp4", "a"), 1),
        **dict.fromkeys(("1_Film_00.01.02.003.avi", "1_Film_00.01.02.003"), 2),
        **dict.fromkeys(("films/1_Film_00.01.02.003.avi", "films/1_Film_00.01.02.003"), 2),
        **dict.fromkeys(("x/b.mp4", "x/b"), 3),
        **dict.fromkeys(("y/b.mp4", "y/b"), 4),
    }
    assert "y/b" in folder and "b" in folder and "c" not in folder
    with pytest.raises(InputError, match=r"the video 'b' could be any of .*x/b.mp4.*y/b.mp4"):
        folder["b"]
    with pytest.raises(InputError, match="there is no feature file"):
        FeatureFolder(tmp_path / "nowhere")


def test_a_video_whose_suffix_is_not_known_is_found_with_any(tmp_path):
    """The authors' dumps name their videos without a suffix, and captions often have one."""
    names = ["v0", "films/1_Film_00.01.02.003", "v1.avi", "v2", "v2.mp4", "x/v3", "y/v3"]
    for i, name in enumerate(names):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_features(path, content(name, n=i + 1))
    folder = FeatureFolder(tmp_path)
    found = {
        **dict.fromkeys(("v0", "v0.mp4", "v0.MKV"), 1),
        **dict.fromkeys(("1_Film_00.01.02.003", "1_Film_00.01.02.003.avi"), 2),
        **dict.fromkeys(("films/1_Film_00.01.02.003", "films/1_Film_00.01.02.003.avi"), 2),
        **dict.fromkeys(("v1", "v1.avi"), 3),
        "v2.avi": 4,  # not of v2.mp4
        "v2.mp4": 5,
        "y/v3.mp4": 7,
    }
    assert {name: len(folder[name]["frame"]) for name in found} == found
    assert all(name in folder for name in found)
    # Another suffix than that of the video, or an end of the name that is no suffix of a video.
    for name in ("v1.mp4", "v0.part1", "v0.0", "v9.mp4", "films/v0.mp4"):
        assert name not in folder and not folder.files_of(name)
    with pytest.raises(InputError, match=r"the video 'v3.mp4' could be any of .*x/v3.*y/v3"):
        folder["v3.mp4"]


@pytest.mark.parametrize("data", [b"", b"garbage" * 50])
def test_read_features_refuses_garbage(data, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_features(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no file"):
        read_features(tmp_path / "b.safetensors")


def test_read_features_refuses_numbers_that_numpy_lacks(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    write_features(tmp_path / "a.safetensors", content())
    header = {"format": feature_files.FORMAT, "experts": '{"frame": "1"}'}
    header["source"] = '{"name": "a", "size_bytes": 1, "sha256": "0"}'
    tensors = {"features.frame": torch.zeros(2, 3, dtype=torch.bfloat16)}
    save_torch(tensors, tmp_path / "a.safetensors", header)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_features(tmp_path / "a.safetensors")


@pytest.mark.slow
def test_update_features_keeps_what_another_process_adds_meanwhile(tmp_path):
    """Two processes read the same file before either writes; a barrier holds them there."""
    program = """
import sys, time
from pathlib import Path
import numpy as np
from mdmmt.features import files
from mdmmt.features import ExpertFeatures, SourceVideo

folder, name = Path(sys.argv[1]), sys.argv[2]
read = files.read_existing

def slow_read(*args):
    content = read(*args)
    time.sleep(0.5)  # without the lock the other process reads in this time, too
    return content

files.read_existing = slow_read
(folder / f"ready-{name}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
features = {name: ExpertFeatures(np.ones((1, 2)), np.array([[0.0, 1.0]]))}
files.update_features(folder / "a.safetensors", SourceVideo("a", 1, "0"), features, {name: "1"})
"""
    names = ("frame", "motion")
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in names
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    assert set(read_features(tmp_path / "a.safetensors").features) == set(names)
