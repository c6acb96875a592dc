# What Towhee's hub and operator folder execute: `ops.video_text_embedding.mdmmt`.
#
# Towhee compares nothing that it fetches with any hash, and keeps what was cut short on the way. So
# where there is a MANIFEST.json (a clone has none), each file is compared with it before the
# package is imported, which a cut could turn into a SyntaxError or into other vectors.
#
# This file itself is so small that it arrives whole or empty, as a rule. Empty, it has no `mdmmt`,
# and Towhee executes mdmmt.py instead, which tells. So does a file cut up here, above all code.
#
# The package is imported relatively, since there it is not installed. That binds the name `mdmmt`
# twice: first to the sub-package, and then, as must be, to the factory.

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
                raise ValueError("not as published")
    except (OSError, ValueError) as error:
        cached = HERE.parents[1] if HERE.parent.name == "versions" else HERE
        raise RuntimeError(
            f"{file} is cut short: save weights of yours, delete {cached}, try again"
        ) from error

from .mdmmt.operator import MDMMT, mdmmt  # noqa: E402

__all__ = ["MDMMT", "mdmmt"]
