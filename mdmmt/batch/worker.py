"""The work on one portion of a large run, from items to a part; a Ray actor calls it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import InputError, MdmmtError, describe_error
from ..experts import Expert
from ..experts import load as load_experts
from ..features.files import SUFFIX
from ..model import Model, load
from ..storage.files import check_file, sha256_of
from ..storage.object_store import local_copy
from ..weights.identity import Identity, identity_of
from .embed import embed_texts
from .extract import extract_file
from .outcome import Outcome, run_each
from .parts import Parts, Row
from .sources import Kind, feature_file_of, item_id


class Work(NamedTuple):
    """What is done with each item."""

    kind: Kind
    load: Mapping[str, Any]  # the arguments of `mdmmt.load`
    identity: Identity  # of the model that they load
    out: str  # see `Parts`
    root: str = ""  # see `Items`
    options: str = ""  # of the object store of the items
    window_s: float | None = None
    stride_s: float | None = None
    features: str | None = None  # the folder that keeps the features of videos
    threads: int = 1  # of each worker, and videos that it reads at once


class Done(NamedTuple):
    """What became of one portion."""

    items: int
    rows: int  # with a vector
    failures: list[tuple[str, str]]  # name and error
    fatal: str | None = None  # why the run cannot go on


class Worker:
    """Embeds one portion of items after the other, with a model that it loads once."""

    def __init__(self, work: Work, mark: str) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            mark: see `Parts.begin`.
        """
        self.work = work
        self.mark = mark
        self._model: Model | None = None
        self._experts: Mapping[str, Expert] = {}

    def __call__(self, names: Sequence[str]) -> Done:
        """Embed items and write their part."""
        try:
            parts = Parts(self.work.out)
            parts.check_mark(self.mark)
            rows = list(self._rows(names))
            identity = self.work.identity
            parts.write(self.mark, rows, self.work.kind, identity.sha256, identity.dim)
        except (MdmmtError, OSError) as error:  # those of an item are in its row
            return Done(
                0, 0, [], f"{describe_error(error)} (on the machine {socket.gethostname()})"
            )
        failures = [(row.name, row.error) for row in rows if row.error is not None]
        return Done(len(names), len(rows) - len(failures), failures)

    def _rows(self, names: Sequence[str]) -> Iterator[Row]:
        model = self._load()
        if self.work.kind == "text":
            for row in embed_texts(model, names):
                yield Row(f"{item_id(row.name)}-0", row.name, row.vector, error=row.error)
            return
        for outcome in run_each(zip(names, names, strict=True), self._embed, self.work.threads):
            yield from _rows_of(outcome)

    def _load(self) -> Model:
        if self._model is None:
            work = self.work
            torch.set_num_threads(work.threads)
            model = load(**work.load)
            identity = identity_of(model.path, model.config)
            if identity.sha256 != work.identity.sha256:
                raise InputError(
                    f"--weights {work.load['weight_path']!r} is the model {identity} here, and "
                    f"{work.identity} where the command was started; expected the same everywhere"
                )
            if work.kind == "text":
                _ = model.text_encoder  # missing weights end the run, they are no text's own error
            else:
                _ = model.video_encoder
                if work.features is not None:
                    self._experts = load_experts(
                        model.expert_names, device=model.device, precision=model.reader.precision
                    )
            self._model = model
        return self._model

    def _embed(self, name: str) -> list[Row]:
        """The rows of one video or feature file."""
        work, model = self.work, self._load()
        with local_copy(name, work.options) as file:
            check_file(file, "a video file or a feature file")
            sha256 = sha256_of(file)
            features = name if name.endswith(SUFFIX) else None
            if features is None and work.features is not None:
                features = os.path.join(work.features, feature_file_of(name, work.root))
                extract_file(
                    file, Path(features), self._experts, time_limit_s=model.reader.time_limit_s
                )
                file = Path(features)
            versions, clock = model.reader.versions_of(file)
            vectors, spans_s = model.encode_segments(
                file, window_s=work.window_s, stride_s=work.stride_s
            )
        about = Row("", name, None, None, features, sha256, versions, clock)
        return [
            about._replace(id=f"{item_id(name)}-{i}", vector=vector, span_s=(start_s, end_s))
            for i, ((start_s, end_s), vector) in enumerate(
                zip(spans_s.tolist(), vectors, strict=True)
            )
        ]


def error_row(name: str, error: str) -> Row:
    """The row of an item that failed."""
    return Row(f"{item_id(name)}-0", name, error=error)


def _rows_of(outcome: Outcome[list[Row]]) -> Iterable[Row]:
    if outcome.result is None:
        return [error_row(outcome.name, outcome.error or "")]
    return outcome.result
