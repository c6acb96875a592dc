"""What was found, as one HTML file that needs nothing besides: no script, no server, no network."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import quote

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..media.decode import best_stream, check_format, open_media
from ..storage.files import atomic_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..model import Similarity
    from .index import Hit

POSTER_SIZE, STRIP_SIZE = (640, 360), (240, 135)  # pictures fit into it
STRIP = (1 / 6, 1 / 2, 5 / 6)  # of a segment, where its three small pictures are
JPEG_QUALITY = 80

# Nothing in the page may run or load anything, but for the clips.
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
media-src 'self' file: http: https:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$query</title>
<style>
:root {
  color-scheme: light dark;
  --page: #f5f5f3; --card: #ffffff; --text: #1d1d1b; --quiet: #6b6b66; --line: #e2e2dd;
  --bar: #2f6fb5; --minus: #c2693d; --empty: #ebebe7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --card: #212120; --text: #ededea; --quiet: #a0a09a; --line: #343432;
    --bar: #6ea8e6; --minus: #e09468; --empty: #2c2c2a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 84rem; padding: 2rem 1.5rem 3rem;
  background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif;
}
h1 { margin: 0; font-size: 1.5rem; font-weight: 600; overflow-wrap: anywhere; }
header p { margin: .25rem 0 1.5rem; color: var(--quiet); }
ol {
  display: grid; gap: 1.25rem; margin: 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
}
li {
  display: flex; flex-direction: column; overflow: hidden;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
video, .none { display: block; width: 100%; aspect-ratio: 16 / 9; background: #000; }
audio { display: block; width: 100%; background: var(--empty); }
.strip { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1px; background: #000; }
.strip img {
  display: block; width: 100%; aspect-ratio: 16 / 9; object-fit: contain; background: #000;
}
.none {
  display: grid; place-items: center; padding: 1rem; text-align: center;
  background: var(--empty); color: var(--quiet);
}
.about { padding: .75rem .9rem .9rem; }
.first { display: flex; gap: .6rem; align-items: baseline; }
.rank { color: var(--quiet); }
.name { flex: 1; min-width: 0; font-weight: 600; overflow-wrap: anywhere; }
.score { font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.when { margin: .1rem 0 0; color: var(--quiet); font-variant-numeric: tabular-nums; }
.facts { margin: .35rem 0 0; color: var(--quiet); font-size: .87rem; overflow-wrap: anywhere; }
.shares { width: 100%; margin-top: .6rem; border-collapse: collapse; font-size: .87rem; }
.shares th { padding: 0 .6rem 0 0; text-align: left; font-weight: 400; white-space: nowrap; }
.shares td { padding: 0; width: 100%; }
.shares td + td {
  padding-left: .6rem; width: auto; text-align: right; font-variant-numeric: tabular-nums;
}
.track { position: relative; height: .5rem; border-radius: 3px; background: var(--empty); }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 3px; background: var(--bar); }
.track i.minus { background: var(--minus); }
</style>
</head>
<body>
<header>
<h1>$query</h1>
<p>$summary</p>
</header>
<ol>
$hits
</ol>
</body>
</html>
""")

HIT = Template("""\
<li>
$picture
<div class="about">
<div class="first"><span class="rank">$rank</span>\
<bdi class="name" title="$path">$name</bdi><span class="score">$score</span></div>
<p class="when">$when</p>
$facts$shares</div>
</li>""")


def write_page(
    out: Path, query: str, hits: Sequence[Hit], similarity: Similarity | None = None
) -> None:
    """Write what was found as an HTML page, whole or not at all.

    Each hit shows pictures of itself, and plays from its start to its end where the browser can
    play the file, which the page finds relative to its own place. Of a file that cannot be read,
    or is sound alone, there is a note in the place of the pictures.

    Args:
        out: the file to write.
        query: what was searched for.
        hits: best first.
        similarity: of the query with these hits, (1, len(hits)), for each expert's share.

    Raises:
        InputError: `similarity` is not that of the hits.
    """
    if similarity is not None and similarity.score.shape != (1, len(hits)):
        raise InputError(
            f"similarity is of {similarity.score.shape} texts and videos, expected (1, {len(hits)})"
        )
    count = "1 segment" if len(hits) == 1 else f"{len(hits)} segments"
    shares = [""] * len(hits)
    if similarity is not None and hits:
        shares = _shares(similarity.by_expert[0], similarity.experts)
        summary = f"{count}, best first; the experts' shares add up to the score"
    else:
        summary = f"{count}, best first"
    items = [
        _hit(rank, hit, share, out)
        for rank, (hit, share) in enumerate(zip(hits, shares, strict=True), start=1)
    ]
    page = PAGE.substitute(query=html.escape(query), summary=summary, hits="\n".join(items))
    with atomic_file(out) as part:
        part.write_text(page, encoding="utf-8", errors="replace")  # names need not be Unicode


def pictures_at(path: str | os.PathLike[str], times_s: Sequence[float]) -> list[Image]:
    """The pictures that a video shows at some times, upright; after its end its last one.

    Raises:
        InputError: the file cannot be read, or there is no picture that can be decoded.
    """
    try:
        with open_media(path) as container:
            check_format(container, path)
            return [_picture_at(container, time_s) for time_s in times_s]
    except (av.FFmpegError, OSError, LookupError) as error:
        raise InputError(f"no picture can be read from {os.fspath(path)!r} ({error})") from error


def _picture_at(container: av.container.InputContainer, time_s: float) -> Image:
    stream = best_stream(container, "video")
    if stream is None:
        raise LookupError("there is none")
    first_s = float((stream.start_time or 0) * stream.time_base)
    container.seek(int((first_s + time_s) / stream.time_base), stream=stream)  # or before that
    shown = None
    for frame in container.decode(stream):
        if shown is not None and frame.time is not None and frame.time - first_s > time_s:
            break
        shown = frame
    if shown is None:
        raise LookupError("none is left")
    return shown.to_image().rotate(round(shown.rotation), expand=True)


def _hit(rank: int, hit: Hit, shares: str, out: Path) -> str:
    facts = " · ".join(f"{name}: {value}" for name, value in hit.metadata.items())
    return HIT.substitute(
        picture=_player(hit, out),
        rank=rank,
        path=html.escape(hit.path),
        name=html.escape(Path(hit.path).name),
        score=f"{hit.score:.3f}",
        when=f"{_clock(hit.start_s)} &ndash; {_clock(hit.end_s)}",
        facts=f'<p class="facts">{html.escape(facts)}</p>\n' if facts else "",
        shares=shares,
    )


def _player(hit: Hit, out: Path) -> str:
    """The clip and pictures of it, or why there are none."""
    if not os.path.isfile(hit.path):
        return '<div class="none">The file is not there.</div>'
    source = f"{_relative_url(hit.path, out)}#t={hit.start_s:.3f},{hit.end_s:.3f}"
    times_s = [hit.start_s + part * (hit.end_s - hit.start_s) for part in STRIP]
    try:
        pictures = pictures_at(hit.path, times_s)
    except InputError:
        note = '<div class="none">The file shows no picture.</div>'
        sound = f'\n<audio controls preload="metadata" src="{html.escape(source)}"></audio>'
        return note + sound if _has_sound(hit.path) else note
    strip = [
        f'<img alt="at {_clock(time_s)}" src="{_jpeg_url(picture, STRIP_SIZE)}">'
        for time_s, picture in zip(times_s, pictures, strict=True)
    ]
    return (
        f'<video controls preload="metadata" playsinline src="{html.escape(source)}" '
        f'poster="{_jpeg_url(pictures[1], POSTER_SIZE)}"></video>\n'
        f'<div class="strip">{"".join(strip)}</div>'
    )


def _has_sound(path: str) -> bool:
    try:
        with open_media(path) as container:
            return best_stream(container, "audio") is not None
    except (av.FFmpegError, OSError):
        return False


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


def _shares(by_expert: NDArray[np.float32], experts: Sequence[str]) -> list[str]:
    """For each hit a table of bars, all of them on one scale.

    Args:
        by_expert: (hits, experts).
    """
    low, high = min(float(by_expert.min()), 0.0), max(float(by_expert.max()), 0.0)
    percent = 100 / ((high - low) or 1.0)

    def bar(name: str, share: float) -> str:
        left, width = (min(share, 0.0) - low) * percent, abs(share) * percent
        kind = ' class="minus"' if share < 0 else ""
        return (
            f'<tr><th scope="row">{html.escape(name)}</th><td><div class="track"><i{kind} '
            f'style="left:{left:.1f}%;width:{width:.1f}%"></i></div></td><td>{share:.3f}</td></tr>'
        )

    tables = ["\n".join(map(bar, experts, shares)) for shares in by_expert.tolist()]
    return [f'<table class="shares">\n{table}\n</table>\n' for table in tables]


def _clock(time_s: float) -> str:
    """Seconds as people read them: 3723.5 -> 1:02:03.5."""
    tenths = round(time_s * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"
