"""Search results as one HTML file that needs nothing else: no script, no server, no network.

The text and the style of the page are the Jinja2 template `page.html`, which escapes every value.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ..errors import InputError
from ..media.stills import each_still_at, has_sound
from ..model import Similarity
from ..storage.files import atomic_file
from .index import Hit

TEMPLATE = Path(__file__).with_name("page.html")
POSTER_SIZE, STRIP_SIZE = (640, 360), (240, 135)  # pixels; pictures are made to fit into it
STRIP = (1 / 6, 1 / 2, 5 / 6)  # where in a segment its three small pictures are taken
POSTER = 1  # the picture of the strip that is also the poster of the player
JPEG_QUALITY = 80


class Picture(NamedTuple):
    """A small picture of a segment."""

    time_s: float
    url: str  # holds the JPEG itself


class Bar(NamedTuple):
    """The share of one expert in a score."""

    expert: str
    share: float
    left: float  # percent of the width of the track
    width: float


class Card(NamedTuple):
    """A hit, as the template shows it."""

    hit: Hit
    name: str  # of the file
    facts: str  # the metadata
    bars: Sequence[Bar]
    strip: Sequence[Picture] = ()  # empty for a file without pictures
    poster_url: str = ""
    note: str = ""  # is shown instead of missing pictures
    url: str = ""  # of the segment in its file; empty if it can be neither seen nor heard


def write_page(
    out: Path, query: str, hits: Sequence[Hit], similarity: Similarity | None = None
) -> None:
    """Write search results as an HTML page, atomically.

    Each hit shows its pictures and plays from its start to its end, if the browser can play the
    file. The page finds the files relative to its own place. A file that cannot be read or that
    has sound alone gets a note instead of pictures.

    Args:
        out: the file to write.
        query: the text, or the name of the video, that was searched for.
        hits: best first.
        similarity: of the query and these hits, (1, len(hits)), for the share of each expert.

    Raises:
        InputError: `similarity` has another shape.
    """
    if similarity is not None and similarity.score.shape != (1, len(hits)):
        raise InputError(
            f"similarity is of {similarity.score.shape} texts and videos, expected (1, {len(hits)})"
        )
    summary = "1 segment, best first" if len(hits) == 1 else f"{len(hits)} segments, best first"
    bars: list[list[Bar]] = [[] for _ in hits]
    if similarity is not None and hits:
        summary += "; the experts' shares add up to the score"
        bars = _bars(similarity.by_expert[0], similarity.experts)
    page = _template().render(
        query=query,
        summary=summary,
        cards=[_card(hit, bars_of_hit, out) for hit, bars_of_hit in zip(hits, bars, strict=True)],
    )
    with atomic_file(out) as part:
        part.write_text(page, encoding="utf-8", errors="replace")  # names need not be Unicode


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["clock"] = _clock
    return environment.get_template(TEMPLATE.name)


def _card(hit: Hit, bars: Sequence[Bar], out: Path) -> Card:
    facts = " · ".join(f"{name}: {value}" for name, value in hit.metadata.items())
    card = Card(hit, Path(hit.path).name, facts, bars)
    if not os.path.isfile(hit.path):
        return card._replace(note="The file is not there.")
    url = f"{_relative_url(hit.path, out)}#t={hit.start_s:.3f},{hit.end_s:.3f}"
    times_s = [hit.start_s + part * (hit.end_s - hit.start_s) for part in STRIP]
    strip, poster_url = [], ""
    try:
        # Pictures are made small one by one, since large ones fill the memory.
        for k, still in enumerate(each_still_at(hit.path, times_s)):
            strip.append(Picture(times_s[k], _jpeg_url(still, STRIP_SIZE)))
            if k == POSTER:
                poster_url = _jpeg_url(still, POSTER_SIZE)
    except InputError:
        note = "The file shows no picture."
        return card._replace(note=note, url=url if has_sound(hit.path) else "")
    return card._replace(strip=strip, poster_url=poster_url, url=url)


def _jpeg_url(picture: Image, size: tuple[int, int]) -> str:
    small = picture.convert("RGB")
    small.thumbnail(size)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"


def _relative_url(path: str, out: Path) -> str:
    try:
        relative = os.path.relpath(path, out.absolute().parent)
    except ValueError:  # on another drive
        return Path(path).absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _bars(by_expert: NDArray[np.float32], experts: Sequence[str]) -> list[list[Bar]]:
    """The bars of each hit; all hits share one scale.

    Args:
        by_expert: (hits, experts).
    """
    low, high = min(float(by_expert.min()), 0.0), max(float(by_expert.max()), 0.0)
    percent = 100 / ((high - low) or 1.0)
    return [
        [
            Bar(expert, share, (min(share, 0.0) - low) * percent, abs(share) * percent)
            for expert, share in zip(experts, shares, strict=True)
        ]
        for shares in by_expert.tolist()
    ]


def _clock(time_s: float) -> str:
    """Seconds as people read them: 3723.5 -> 1:02:03.5."""
    tenths = round(time_s * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"
