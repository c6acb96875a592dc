"""The package's messages in the words of the commands: options for arguments, each path once."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What a message calls an argument in Python -> what it is called here.
WORDS = {
    "weight_path": "--weights",
    "window_s": "--window",
    "stride_s": "--stride",
    "segments='windows'": "--segments windows",
    "mmttxt_params={'tokenizer': FOLDER}": "--tokenizer FOLDER",
    "`experts`": "--experts",
    "device is": "--device is",
    ", 'mps' or None": " or 'mps'",
    "device='cpu'": "--device cpu",
    "device=None": "no --device",
    "k is": "-k is",
    "per_video": "--per-video",
}
QUOTED = r"'(?:[^'\\]|\\.)*'"  # a name or a path, which stays as it is
NAMED_TWICE = re.compile(r"(.+?): (.*['\"]\1['\"].*)", re.DOTALL)


def in_words_of_commands(message: str, words: Mapping[str, str]) -> str:
    """Put options for Python's arguments, and leave out a path that the message itself names.

    Args:
        words: what to put for a word of the package.
    """
    if (twice := NAMED_TWICE.fullmatch(message)) is not None:
        message = twice[2]
    names = "|".join(rf"(?<![\w/.-]){re.escape(word)}(?!\w)" for word in words)
    return re.sub(f"{names}|{QUOTED}", lambda found: words.get(found[0], found[0]), message)
