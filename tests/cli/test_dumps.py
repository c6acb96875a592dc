"""`mdmmt dumps`."""

from __future__ import annotations

from pathlib import Path

from feature_files import same

from mdmmt import experts
from mdmmt.cli import main
from mdmmt.features.files import (
    SourceVideo,
    read_features,
)

LIGHT = ",".join(experts.LIGHT_EXPERTS)


def written(out: Path) -> int:
    return len(list(out.glob("*.safetensors")))


def test_dumps_write_and_read_give_the_features_back(videos, tmp_path, capsys):
    """Feature files to dumps and back; times have two decimals there."""
    out, dumps, back = (tmp_path / name for name in ("out", "dumps", "back"))
    names = ("a.mkv", "silent.mkv")
    main(["extract", *(str(videos / n) for n in names), f"--out={out}", "--experts", LIGHT])
    files = [out / f"{name}.safetensors" for name in names]
    assert main(["dumps", "write", *map(str, files), f"--out={dumps}"]) == 0
    written = sorted(path.name for path in dumps.iterdir())
    assert written == sorted(
        f"{e}.{kind}" for e in experts.LIGHT_EXPERTS for kind in ("emb", "idx")
    )
    given = [f"{name}={dumps / name}" for name in experts.LIGHT_EXPERTS]
    first = experts.LIGHT_EXPERTS[0]
    assert main(["dumps", "read", *given, f"--out={back}"]) == 0
    for file, name in zip(files, ("a", "silent"), strict=True):
        before, after = read_features(file), read_features(back / f"{name}.safetensors")
        assert same(before.features, after.features)
        assert after.source == SourceVideo(name, None, None)
    assert main(["dumps", "read", given[0], f"--out={back}"]) == 0  # which loses no other expert
    assert set(read_features(back / "a.safetensors").versions) == set(experts.LIGHT_EXPERTS)
    # Nor does a dump of other videos, named beside one of this video.
    assert main(["dumps", "write", str(files[1]), f"--out={tmp_path / 'part'}"]) == 0
    part = f"{first}={tmp_path / 'part' / first}"
    assert main(["dumps", "read", part, given[1], f"--out={back}"]) == 0
    assert set(read_features(back / "a.safetensors").features) == set(experts.LIGHT_EXPERTS)
    assert main(["dumps", "read", "CLIP", f"--out={back}"]) == 1
    assert "expected EXPERT=PREFIX" in capsys.readouterr().err
