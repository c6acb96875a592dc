"""`mdmmt convert`: weights of any layout as a model folder that gives the same vectors."""

from __future__ import annotations

import os
from pathlib import Path

from ..towers.tokenizer import load_tokenizer, tokenizer_source
from .folder import check_replaceable, write_model_folder
from .locate import find_weights


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write a model folder from weights of any layout.

    Args:
        source: a `weight_path`, see `find_weights`.
        out: the folder; it appears whole or not at all, and replaces a model folder there.

    Returns:
        The folder.

    Raises:
        WeightsError: there are no weights or no tokenizer, or they do not fit.
        InputError: `out` exists and is not a model folder, or cannot be written.
        OSError: the disk fails, or is full; an old folder remains as it was.
    """
    out = Path(out).expanduser()
    check_replaceable(out)  # before anything is downloaded
    path = find_weights(source)
    tokenizer = load_tokenizer(tokenizer_source(path))
    write_model_folder(path, out, tokenizer, origin=path.name)
    return out
