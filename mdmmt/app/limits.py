"""The bounds of what the page takes."""

from __future__ import annotations

MAX_QUERY = 1_000  # characters; the model reads the first 30 tokens of a sentence
MAX_UPLOAD = 500_000_000  # bytes of a video
