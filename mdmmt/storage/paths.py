"""Where this package looks for files: beside the operator, in itself, and in the user's cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SAMPLE = "sample"  # the weight_path that means SAMPLE_FOLDER
SAMPLE_FOLDER = Path(__file__).parents[1] / "sample" / "model"
# Beside the operator: the parent of this package. `__file__` must not be resolved, since
# Towhee's hub lays an operator as symbolic links into a folder of blobs.
WEIGHTS_FOLDER = Path(__file__).parents[2] / "weights"
WEIGHTS_VARIABLE = "MDMMT_WEIGHTS"
HOME_VARIABLE = "MDMMT_HOME"


def cache_folder() -> Path:
    """The folder of this user's downloads.

    It is the one that MDMMT_HOME names, else one in $XDG_CACHE_HOME, else where the system has
    caches.
    """
    home = os.environ.get(HOME_VARIABLE, "")
    if home.strip():
        return Path(home).expanduser().absolute()
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return Path(named, "mdmmt")
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
        return Path(local, "mdmmt", "Cache")
    caches = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.path.expanduser(caches), "mdmmt")
