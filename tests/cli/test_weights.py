"""`mdmmt convert`, `info` and `export`; tests/weights has more of the weights themselves."""

from __future__ import annotations

import onnxruntime
import pytest
import torch

from mdmmt.cli import main
from mdmmt.sample import NOTICE
from mdmmt.weights.onnx import MIN_TORCH

FACTS = ("path", "layout", "size", "sha256", "origin", "dtype", "experts", "video tower")


def test_info_prints_a_table_of_what_convert_has_written(tmp_path, capsys):
    assert main(["convert", "sample", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"model folder written to {tmp_path / 'out'}\n"
    assert main(["info", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    width = len("video tower") + 2
    facts = {line[:width].rstrip(): line[width:] for line in lines}
    assert tuple(facts) == (*FACTS, "text tower", "tokenizer", "fits")
    assert facts["path"] == str(tmp_path / "out") and facts["fits"] == "yes"
    assert facts["experts"] == "frame (102 wide), motion (63 wide), sound (109 wide)"


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < MIN_TORCH, reason=f"an export needs PyTorch {MIN_TORCH}")
def test_export_writes_the_file(tmp_path, capsys):
    out = tmp_path / "new" / "text.onnx"
    assert main(["export", "text", "--out", str(out), "--weights=sample"]) == 0
    printed = capsys.readouterr()
    assert str(out) in printed.out and printed.err.count(NOTICE) == 1
    assert onnxruntime.InferenceSession(out).get_outputs()[0].name == "vector"
