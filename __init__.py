# Towhee executes this file for `ops.video_text_embedding.mdmmt`, from its operator folder.
#
# Towhee does not check what it downloads, and keeps a truncated file, which could raise a
# SyntaxError or give other vectors. So all files are compared with MANIFEST.json before the package
# is imported. A clone has no manifest.
#
# This file fits one network packet: it arrives whole or empty. An empty one defines no `mdmmt`, and
# Towhee executes mdmmt.py instead, which reports it. The same happens to a file that is cut within
# this comment, which is longer than the code.
#
# The package is not installed there, so its import is relative. That binds `mdmmt` to the package
# first, and then to the operator.

from hashlib import sha256
from json import loads
from pathlib import Path

HERE = Path(__file__).parent
file = HERE / "MANIFEST.json"
if file.exists():
    try:
        for name, digest in loads(file.read_bytes()).items():
            file = HERE / name
            if sha256(file.read_bytes()).hexdigest() != digest:
                raise ValueError
    except (OSError, ValueError) as error:
        cached = HERE.parents[1] if HERE.parent.name == "versions" else HERE
        raise RuntimeError(
            f"{file} is cut short: save your own weights, delete {cached}, try again"
        ) from error

from .mdmmt.operator import MDMMT, mdmmt  # noqa: E402

__all__ = ["MDMMT", "mdmmt"]
