"""The page: its components, and the functions that they call."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..batch.outcome import Outcome, run_each
from ..errors import InputError, collect_warnings
from ..features.listing import find_videos_or_features
from ..sample import NOTICE, is_sample, note_on
from ..search import Hit, index_files
from ..search.answer import answer
from ..search.page import write_cards
from ..storage.text import counted
from .library import Library
from .limits import MAX_QUERY

MOST_SHOWN = 50  # hits
MOST_PER_VIDEO = 10
ASK_FOR_MORE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button.like");
  if (button) trigger("click", {id: button.dataset.id});
});
"""
UPLOADS_KEPT_S = 3600
EXAMPLES = ("a red triangle", "something cyan", "a star that blinks", "a rising tone")  # drawn ones


class Query(NamedTuple):
    """A query that was embedded, or why it was not."""

    vector: NDArray[np.float32] | None
    note: str = ""  # a sentence that stands in place of the hits
    warnings: tuple[str, ...] = ()  # sentences that stand above them
    is_text: bool = False
    besides: Hit | None = None  # a window that is not to be found itself


class Features:
    """What the page does, one method for each feature."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.model = library.model

    def read_sentence(self, text: str) -> Query:
        """Embed a sentence."""
        if len(text) > MAX_QUERY:
            return Query(
                None, f"The query has {len(text)} characters, expected at most {MAX_QUERY}."
            )
        if not text.strip():
            return Query(None, "Type a sentence first.")
        with collect_warnings() as warnings:
            try:
                vector = self.model.encode_text(text.strip())
            except InputError as error:
                return Query(None, _of_the_page(str(error)))
        return Query(vector, warnings=tuple(map(_of_the_page, warnings)), is_text=True)

    def read_video(self, path: str | None, text: str) -> Query:
        """Embed a video that was uploaded, with a sentence unless that is blank."""
        if path is None:
            return Query(None, "Choose a video first.")
        sentence = self.read_sentence(text) if text.strip() else None
        if sentence is not None and sentence.vector is None:
            return sentence
        with collect_warnings() as warnings:
            (outcome,) = run_each([(path, path)], self.model.encode_video)
        folder = os.path.join(os.path.dirname(path), "")  # of the copy that the page keeps
        if outcome.error is not None or outcome.result is None:
            return Query(None, _of_the_page(outcome.error or "", folder))
        told = tuple(_of_the_page(warning, folder) for warning in warnings)
        if sentence is None or sentence.vector is None:
            return Query(outcome.result, warnings=told)
        both = self.library.index.combine(sentence.vector, outcome.result)
        return Query(both, warnings=sentence.warnings + told)

    def read_hit(self, event: gr.EventData) -> Query:
        """Take the window of a hit, whose button was pressed."""
        try:
            with self.library.lock:
                window = self.library.index.window(event._data["id"])
        except InputError as error:
            return Query(None, str(error))
        return Query(window.vector, besides=window)

    def show(
        self,
        query: Query | None,
        k: float,
        per_video: float,
        windows: bool,
        filter: str,
        *weights: float,
    ) -> str:
        """Search for a query, and write the hits as HTML.

        Args:
            per_video: the largest number of hits of one file; 0: any number.
            windows: whether each window is a hit by itself.
        """
        if query is None:
            return ""
        if query.vector is None:
            return _note(query.note)
        by_expert = dict(zip(self.library.experts, weights, strict=True))
        is_weighed = any(weight != 1 for weight in weights)
        try:
            with self.library.lock:
                hits, similarity = answer(
                    *(self.library.index, self.model, query.vector, int(k)),
                    filter.strip() or None,
                    by_expert if is_weighed else None,
                    int(per_video) or None,
                    merge=not windows,
                    besides=query.besides,
                )
        except InputError as error:
            return _note(str(error))
        told = "".join(map(_note, query.warnings))
        if not hits:
            names = f" {self.names()}" if filter else ""
            return told + _note(f"Nothing was found.{names}")
        note = "" if is_weighed or not query.is_text else note_on(self.model.path, hits[0].score)
        cards = write_cards(hits, similarity, self.library.url_of)
        count = counted(len(hits), "window" if windows else "moment")
        order = ", best first" if len(hits) > 1 else ""
        shown = told + _note(f"{note} {count}{order}".strip()) + cards
        return shown.encode("utf-8", "replace").decode()  # a name of a file need not be Unicode

    def names(self) -> str:
        """The names that a filter may have, as a sentence."""
        with self.library.lock:
            names = self.library.index.metadata_names()
        return f"The metadata have {', '.join(names)}." if names else "No file has metadata."

    def add(self, path: str) -> Iterator[str]:
        """Add a video or a folder to the library, and write the progress as HTML."""
        path = os.path.expanduser(path.strip())
        if not (os.path.isabs(path) and os.path.exists(path)):
            yield _note("Type the whole path of a folder or a video that is on this machine.")
            return
        failures: list[str] = []
        try:
            with collect_warnings() as warnings:
                paths = find_videos_or_features([path])
            with self.library.adding() as index:
                yield _progress(0, len(paths), failures)
                outcomes = _with_warnings(index_files(index, self.model, paths))
                for number, (outcome, messages) in enumerate(outcomes, start=1):
                    warnings += messages
                    if outcome.error is not None:
                        failures.append(f"{outcome.name}: {outcome.error}")
                    yield _progress(number, len(paths), failures)
        except InputError as error:
            yield _note(str(error))
            return
        done = len(paths) - len(failures)
        videos = counted(len(paths), "video is", "videos are")
        yield _note(f"{done} of {videos} in the library.") + _list(failures + warnings)

    def refresh(self) -> None:
        """Search the present state of the library, which others may have changed."""
        try:
            self.library.refresh()
        except InputError as error:
            gr.Warning(_of_the_page(str(error)))


def make_page(library: Library, can_add: bool) -> Any:
    """Make the page, a `gradio.Blocks`.

    Args:
        can_add: whether a person on the page may add files of this machine.
    """
    features = Features(library)
    drawn = is_sample(library.model.path)
    with gr.Blocks(
        title="mdmmt", analytics_enabled=False, delete_cache=(UPLOADS_KEPT_S, UPLOADS_KEPT_S)
    ) as page:
        gr.Markdown("# Search in videos" + (f"\n\n{NOTICE.capitalize()}." if drawn else ""))
        query = gr.State()
        with gr.Tab("Sentence"):
            text = gr.Textbox("", label="What is to be seen or heard")
            search = gr.Button("Search", variant="primary")
            if drawn:
                gr.Examples(list(EXAMPLES), text, label="Examples")
        with gr.Tab("Video"):
            video = gr.File(label="A video, to find similar ones", file_types=["video", "audio"])
            also = gr.Textbox("", label="What else is to be seen or heard, if anything")
            similar = gr.Button("Find similar", variant="primary")
        if can_add:
            with gr.Tab("Add videos"):
                path = gr.Textbox("", label="Folder or video on this machine, to be added")
                add = gr.Button("Add", variant="primary")
                progress = gr.HTML()
                gr.on([add.click, path.submit], features.add, path, progress)
        with gr.Accordion("Experts, filter and number of results", open=False):
            with gr.Row():
                weights = [
                    gr.Slider(0, 3, 1, step=0.1, label=f"Weight of {expert}")
                    for expert in library.experts
                ]
            with gr.Row():
                filter = gr.Textbox(value="", label="Filter", info=features.names())
                k = gr.Slider(1, MOST_SHOWN, 10, step=1, label="Number of results")
                per_video = gr.Slider(
                    0, MOST_PER_VIDEO, 0, step=1, label="Results of one video at most, 0 for any"
                )
                windows = gr.Checkbox(value=False, label="Show each window by itself")
        hits = gr.HTML(js_on_load=ASK_FOR_MORE)
        inputs = [query, k, per_video, windows, filter, *weights]
        show = {"fn": features.show, "inputs": inputs, "outputs": hits}
        gr.on([search.click, text.submit], features.read_sentence, text, query).then(**show)
        gr.on([similar.click, also.submit], features.read_video, [video, also], query).then(**show)
        hits.click(features.read_hit, None, query).then(**show)
        page.load(features.refresh, show_progress="hidden")
        # A slider that the keyboard moves is never released. Of many changes the last one counts.
        changes = [control.change for control in (k, per_video, windows, *weights)]
        gr.on([filter.submit, *changes], trigger_mode="always_last", **show)
    return page


def _note(text: str) -> str:
    return str(Markup('<p class="note" role="status">{}</p>').format(text))


def _of_the_page(message: str, folder: str = "") -> str:
    """A message of the package in words of the page.

    Args:
        folder: what the page leaves out of paths.
    """
    message = message.replace(folder, "").replace("; segments='windows' takes all of it", "")
    return re.sub(r"\A(the )?text\b", "The sentence", message)


def _with_warnings(
    outcomes: Iterator[Outcome[int]],
) -> Iterator[tuple[Outcome[int], list[str]]]:
    """Each outcome, and the warnings on the way to it; the caller may go on in another thread."""
    while True:
        with collect_warnings() as messages:
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome, messages


def _progress(done: int, count: int, failures: list[str]) -> str:
    bar = Markup('<progress aria-label="Videos" value="{}" max="{}"></progress>')
    note = _note(f"{done} of {counted(count, 'video')}")
    return str(bar.format(done, count)) + note + _list(failures)


def _list(lines: list[str]) -> str:
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
    return str(Markup("<ul>{}</ul>").format(items)) if lines else ""
