"""The videos and feature files that paths stand for."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from media import ffmpeg, picture

from mdmmt.errors import InputError
from mdmmt.features.listing import find_videos, find_videos_or_features


def test_find_videos_follows_links_and_warns_of_folders_it_may_not_read(
    tmp_path, videos, monkeypatch
):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "videos").symlink_to(videos)
    (videos / "deep" / "round").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    names = sorted(str(name) for _, name in find_videos([tmp_path / "linked"]))
    assert names == ["gone.mp4", "videos/a.mkv", "videos/deep/a.mkv", "videos/silent.mkv"]
    real = os.scandir

    def scandir(place):
        if os.fspath(place).endswith("deep"):
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read all folders
    with pytest.warns(UserWarning, match="deep': Permission denied; the files in it are left out"):
        assert len(find_videos([videos])) == 2


def test_find_videos_or_features_takes_the_features_of_a_folder_without_videos(tmp_path, caplog):
    videos, features, other = (tmp_path / name for name in ("videos", "features", "other"))
    for path in (
        *(videos / "a.mp4", videos / "deep" / "b.mkv", videos / "a.mp4.safetensors"),
        *(features / "b.mkv.safetensors", features / "deep" / "a.mp4.safetensors"),
        *(features / ".hidden.safetensors", features / "notes.txt", other / "notes.txt"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    named = [tmp_path / "none.mp4", videos / "a.mp4.safetensors"]
    in_features = [features / "b.mkv.safetensors", features / "deep" / "a.mp4.safetensors"]
    with caplog.at_level("INFO"):
        found = find_videos_or_features([*named, features])
        assert found == [str(path) for path in named + in_features]
        caplog.clear()
        found = find_videos_or_features([videos])
        assert found == [str(videos / "a.mp4"), str(videos / "deep" / "b.mkv")]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"1 feature file is left out of {videos}")
    with pytest.raises(InputError, match=r"no video and no feature file in the folder '.*other'"):
        find_videos_or_features([features, other])
    with pytest.raises(InputError, match=r"no video in the folder '.*features'"):
        find_videos([features])


def test_find_videos_leaves_still_pictures_out_and_counts_them(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="mdmmt")
    for name, seconds in (("still.gif", 0.1), ("STILL.GIF", 0.1), ("film.gif", 0.3)):
        ffmpeg(*picture(fps="10", seconds=seconds).split(" "), "-f", "gif", tmp_path / name)
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    (tmp_path / "still.jpg").write_bytes(b"")
    names = [str(name) for _, name in find_videos([tmp_path])]
    assert names == ["broken.gif", "film.gif"]
    assert [one.getMessage() for one in caplog.records] == [
        f"2 still pictures are left out of {tmp_path}"
    ]
    assert find_videos([tmp_path / "still.gif"]) == [(tmp_path / "still.gif", Path("still.gif"))]
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="its files are still pictures, or have none of"):
        find_videos([tmp_path])
    for file in tmp_path.iterdir():
        file.rename(file.with_name(f".{file.name}"))
    with pytest.raises(InputError, match=r"no file in the folder '.*', expected videos"):
        find_videos([tmp_path])


@pytest.mark.parametrize("find", [find_videos, find_videos_or_features])
def test_an_empty_path_is_not_the_present_folder(tmp_path, monkeypatch, find):
    """Such as `mdmmt extract "$FILMS"` gives, where the variable is not set."""
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a path is empty, expected a file or a folder"):
        find(["a.mp4", ""])
    assert [Path(str(one)).name for one in find_videos_or_features(["."])] == ["a.mp4"]


@pytest.mark.parametrize("find", [find_videos, find_videos_or_features])
def test_a_path_that_cannot_be_looked_up_is_listed_with_the_others(tmp_path, find):
    """So that a run names it, and goes on with the others."""
    odd = [tmp_path / ("a" * 300), tmp_path / "loop.mp4", tmp_path / "a\0b.mp4"]
    odd[1].symlink_to("loop.mp4")
    assert len(find([*odd, tmp_path / "good.mp4"])) == 4
