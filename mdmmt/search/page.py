"""Search results as one HTML file that needs nothing else: no server, no network.

The text and the style of the page are the Jinja2 template `page.html`, which escapes every value.
Its only script is `page.js`: the page's policy names the hash of that script, and no other runs.
The hits are the template `cards.html` and the style `cards.css`, which other pages share.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL.Image import Image
from tqdm import tqdm

from ..errors import InputError
from ..media.stills import each_still_at, end_s, has_sound
from ..model import Similarity
from ..storage.files import atomic_file
from ..storage.text import counted
from .index import Hit

TEMPLATE, CARDS = "page.html", "cards.html"
STYLE = Path(__file__).with_name("cards.css")  # of CARDS; the page that holds it sets the colours
SCRIPT = Path(__file__).with_name("page.js")
# The sizes in pixels into which a poster is made to fit, each with the qualities of its JPEG. The
# first that gives a small enough file is taken, or else the last.
POSTERS = {(320, 180): (80, 65, 50), (240, 135): (50, 35, 20)}
SMALL_POSTER = 8_000  # bytes, so that the posters of 200 hits take 2.1 MB of text


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
    folder: str  # of the file, with the separator at its end
    facts: str  # the metadata
    bars: Sequence[Bar]
    end_s: float  # of the hit, and not later than that of the file
    poster_url: str = ""
    note: str = ""  # is shown instead of a missing poster
    url: str = ""  # of the file, from the best window on; empty if the file is not there
    kind: str = ""  # the element that plays it, `video` or `audio`; empty if none does


def write_page(
    out: str | os.PathLike[str],
    query: str,
    hits: Sequence[Hit],
    similarity: Similarity | None = None,
    show_progress: bool = False,
    note: str = "",
) -> None:
    """Write search results as an HTML page, atomically.

    Each hit shows a picture of the middle of its best window. A click on it plays it from the start
    of that window to the end of the hit, if the browser can play the file. The page finds the files
    relative to its own place. A file that cannot be read or that has sound alone gets a note
    instead of a picture.

    Args:
        out: the file to write.
        query: the text, or the name of the video, that was searched for.
        hits: best first.
        similarity: of the query and these hits, (1, len(hits)), for the share of each expert.
        show_progress: whether to draw a progress bar of the files that are read on stderr.
        note: a sentence that stands above the hits.

    Raises:
        InputError: `similarity` has another shape.
    """
    out = Path(out)
    summary = f"{counted(len(hits), 'moment')}, best first"
    if similarity is not None and hits:
        summary += "; the experts' shares add up to the score"
    script = SCRIPT.read_text(encoding="utf-8")
    page = _template(TEMPLATE).render(
        query=query,
        summary=summary,
        note=note,
        cards=_cards(hits, similarity, lambda path: _relative_url(path, out), show_progress),
        can_ask=False,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with atomic_file(out) as part:
        part.write_text(page, encoding="utf-8", errors="replace")  # names need not be Unicode


def write_cards(
    hits: Sequence[Hit], similarity: Similarity | None, url_of: Callable[[str], str]
) -> str:
    """Write search results as HTML, for a page that has the style `STYLE` and the script `SCRIPT`.

    Each has a button of the class `like` with its id, by which the page may ask for more like it.

    Args:
        hits, similarity: see `write_page`.
        url_of: the address under which the page finds a file.
    """
    cards = _cards(hits, similarity, url_of, show_progress=False)
    return _template(CARDS).render(cards=cards, can_ask=True)


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STYLE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["clock"] = _clock
    return environment.get_template(name)


def _cards(
    hits: Sequence[Hit],
    similarity: Similarity | None,
    url_of: Callable[[str], str],
    show_progress: bool,
) -> list[Card]:
    """The cards of all hits, in their order; each file is read once."""
    if similarity is not None and similarity.score.shape != (1, len(hits)):
        raise InputError(
            f"similarity is of {similarity.score.shape} texts and videos, expected (1, {len(hits)})"
        )
    bars: list[list[Bar]] = [[] for _ in hits]
    if similarity is not None and hits:
        bars = _bars(similarity.by_expert[0], similarity.experts)
    hits_of: dict[str, list[int]] = {}
    for number, hit in enumerate(hits):
        hits_of.setdefault(hit.path, []).append(number)
    cards: dict[int, Card] = {}
    for path, numbers in tqdm(hits_of.items(), unit=" files", disable=not show_progress):
        numbers.sort(key=lambda number: _middle_s(hits[number]))
        plain = [_card(hits[number], bars[number]) for number in numbers]
        cards.update(zip(numbers, _with_pictures(plain, path, url_of), strict=True))
    return [cards[number] for number in range(len(hits))]


def _middle_s(hit: Hit) -> float:
    """The middle of the best window."""
    start_s, end_s = hit.best_window_s
    return (start_s + end_s) / 2


def _card(hit: Hit, bars: Sequence[Bar]) -> Card:
    facts = " · ".join(f"{name}: {value}" for name, value in hit.metadata.items())
    name = Path(hit.path).name
    return Card(hit, name, hit.path.removesuffix(name), facts, bars, hit.end_s)


def _with_pictures(cards: Sequence[Card], path: str, url_of: Callable[[str], str]) -> list[Card]:
    """The cards of one file, in the order of their times, with what the file shows."""
    if not os.path.isfile(path):
        return [card._replace(note="The file is not there.") for card in cards]
    file_end_s = end_s(path)
    located = []
    for card in cards:
        end = card.end_s if file_end_s is None else min(card.end_s, file_end_s)
        url = f"{url_of(path)}#t={card.hit.best_window_s[0]:.3f},{end:.3f}"
        located.append(card._replace(end_s=end, url=url))
    try:
        # Pictures are made small one by one, since large ones fill the memory.
        stills = each_still_at(path, [_middle_s(card.hit) for card in cards])
        posters = [_poster_url(still) for still in stills]
    except InputError:
        kind = "audio" if has_sound(path) else ""
        return [card._replace(note="The file shows no picture.", kind=kind) for card in located]
    return [
        card._replace(poster_url=poster, kind="video")
        for card, poster in zip(located, posters, strict=True)
    ]


def _poster_url(picture: Image) -> str:
    for jpeg in _jpegs(picture.convert("RGB")):
        if len(jpeg) <= SMALL_POSTER:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _jpegs(picture: Image) -> Iterator[bytes]:
    for size, qualities in POSTERS.items():
        picture.thumbnail(size)
        for quality in qualities:
            jpeg = io.BytesIO()
            picture.save(jpeg, "JPEG", quality=quality, optimize=True)
            yield jpeg.getvalue()


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
