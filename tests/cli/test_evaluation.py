"""`mdmmt evaluate`, from clips and captions to tables, files and a plot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdmmt.cli import main
from mdmmt.sample import NOTICE
from mdmmt.sample.captions import caption

CLIPS = 12
SAMPLE = ("--weights=sample", "--device=cpu")


@pytest.fixture(scope="module")
def videos(sample_clips) -> Path:
    """A folder of clips that the sample has not seen."""
    return sample_clips(CLIPS, seed=11)[0].path.parent


@pytest.fixture(scope="module")
def dataset(sample_clips, videos, tmp_path_factory) -> Path:
    """A folder with the features of the clips, and two captions of each."""
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(11)
    lines = []
    for path, combination in sample_clips(CLIPS, seed=11):
        for _ in range(2):
            text = caption(combination, rng)
            lines.append({"video": path.stem, "start_s": 0, "end_s": 3, "caption": text})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "captions.jsonl").write_text(text)
    command = ["extract", str(videos), "--out", str(folder / "features")]
    assert main([*command, "--experts=frame,motion,sound"]) == 0
    return folder


@pytest.mark.slow
def test_evaluate_prints_tables_and_writes_results_and_a_plot(dataset, tmp_path, capsys):
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    command = ["evaluate", "--dataset", str(dataset), *SAMPLE]
    assert main([*command, "--ablate", f"--out={out}", f"--plot={plot}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("protocol: unique (") and f"{2 * CLIPS} captions" in printed
    assert printed.count("\nexperts: ") == 7
    results = json.loads(out.read_text())
    assert results[0]["experts"] == ["frame", "motion", "sound"]
    assert results[0]["t2v"]["R@1"] >= 80 and results[0]["v2t"]["R@5"] >= 80
    assert f"{results[0]['t2v']['R@1']:.2f}" in printed
    with Image.open(plot) as picture:
        assert picture.width > 500
    assert main([*command, f"--compare={out}"]) == 0
    assert f"first: {out}" in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_takes_other_protocols_and_a_list_of_videos(dataset, tmp_path, capsys):
    file = dataset / "captions.jsonl"
    command = ["evaluate", f"--dataset={file}", *SAMPLE]
    assert main([*command, "--protocol=single"]) == 1  # the segments have two captions each
    assert "single" in capsys.readouterr().err
    assert main([*command, "--protocol=one-per-video"]) == 0
    assert f"{CLIPS} captions" in capsys.readouterr().out
    (tmp_path / "some.vids").write_text("0\n1\n2\n3.mp4\n")
    assert main([*command, f"--videos={tmp_path / 'some.vids'}"]) == 0
    printed = capsys.readouterr()
    assert "6 captions" in printed.out
    assert "1 of the 4 videos" in printed.err and ": 3.mp4\n" in printed.err


@pytest.mark.slow
def test_evaluate_warns_of_experts_without_features(dataset, videos, tmp_path, capsys):
    command = ["extract", str(videos), f"--out={tmp_path}", "--experts=frame,sound"]
    assert main(command) == 0
    command = ["evaluate", f"--dataset={dataset / 'captions.jsonl'}", *SAMPLE]
    assert main([*command, f"--features={tmp_path}"]) == 0
    assert "these videos have no features of motion" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().err == f"mdmmt: {NOTICE}\n"


@pytest.mark.slow
def test_evaluate_names_or_skips_missing_features(dataset, tmp_path, capsys):
    lines = (dataset / "captions.jsonl").read_text().splitlines()
    lines.append(json.dumps({"video": "gone", "start_s": 0, "end_s": 3, "caption": "a ball"}))
    file = tmp_path / "captions.jsonl"
    file.write_text("\n".join(lines) + "\n")
    command = ["evaluate", f"--dataset={file}", f"--features={dataset / 'features'}", *SAMPLE]
    assert main(command) == 1
    assert "gone" in capsys.readouterr().err
    assert main([*command, "--skip-missing", f"--out={tmp_path / 'out.json'}"]) == 0
    assert "1 caption was left out" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out.json").read_text())[0]["missing"]) == 1


@pytest.mark.slow
def test_evaluate_keeps_the_results_if_a_later_step_fails(dataset, tmp_path, capsys, monkeypatch):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    command = ["evaluate", f"--dataset={dataset / 'captions.jsonl'}", *SAMPLE]
    assert main([*command, "--protocol=one-per-video", f"--out={first}"]) == 0
    assert main([*command, f"--out={second}", f"--compare={first}"]) == 1
    assert "cannot be compared" in capsys.readouterr().err and second.is_file()
    assert main([*command, f"--out={tmp_path / 'none' / 'a.json'}"]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main([*command, f"--plot={tmp_path / 'a.mp4'}"]) == 1
    printed = capsys.readouterr()
    assert "expected a name that ends in .png" in printed.err and not printed.out
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*command, f"--plot={tmp_path / 'a.png'}"]) == 1
    printed = capsys.readouterr()
    assert "mdmmt[plot]" in printed.err and not printed.out


def test_evaluate_refuses_a_folder_without_an_annotation_file(tmp_path, capsys):
    assert main(["evaluate", f"--dataset={tmp_path}", *SAMPLE]) == 1
    assert "exactly one annotation file" in capsys.readouterr().err
