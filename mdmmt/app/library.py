"""A library: an index that is open, its model, and the files that the page may play."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..model import Model
from ..sample.clips import CLIPS, SEED, choose, draw_library
from ..search import Index, index_files
from ..storage.files import sha256_of
from ..storage.paths import SAMPLE_FOLDER, cache_folder
from ..weights.layout import weights_file

DATABASE = "library.db"  # of the drawn clips, in their folder
CLIPS_URL = "clips"  # the address of a file on the page is CLIPS_URL/KEY


class Library:
    """A database and its model.

    The page searches a private copy of the database, so that others can add to it. Only while the
    page itself adds files, it opens the database, and searches that.

    A browser names a file by a key that the page has given it, and never by a path. A file gets its
    key when a search has found it in the index, so no other file can be asked for.

    Attributes:
        index: what is searched now. A thread that uses it holds `lock`.
    """

    def __init__(self, database: str, index: Index, model: Model) -> None:
        """
        Args:
            index: the database, opened to be read; `close` closes it.
        """
        self.database = database
        self.index = index
        self.model = model
        self.experts = index.experts or ()
        self.lock = threading.Lock()
        self._files: dict[str, str] = {}  # key -> the file, without symbolic links

    @contextmanager
    def adding(self) -> Iterator[Index]:
        """Open the database, so that files can be added to it.

        Raises:
            InputError: another process has it open for that.
        """
        with self.lock:
            self.index.close()
            try:
                self.index = Index.open(self.database, self.model)
            except InputError:
                self.index = self._open_to_read()
                raise
            index = self.index
        try:
            yield index
        finally:
            with self.lock:
                index.close()
                self.index = self._open_to_read()

    def refresh(self) -> None:
        """Search the present state of the database from now on, if others have changed it.

        Raises:
            InputError: see `Index.open`; then the earlier state is searched.
        """
        with self.lock:
            if self.index.is_outdated():
                index = self._open_to_read()
                self.index.close()
                self.index = index

    def close(self) -> None:
        """Let the copy of the database go."""
        with self.lock:
            self.index.close()

    def _open_to_read(self) -> Index:
        return Index.open(self.database, self.model, read_only=True)

    def url_of(self, path: str) -> str:
        """The address of a file of the index on the page."""
        key = hashlib.sha256(os.fsencode(path)).hexdigest()
        self._files.setdefault(key, os.path.realpath(path))
        return f"{CLIPS_URL}/{key}"

    def file_of(self, key: str) -> str | None:
        """The file of a key, or None if no file has this key or a link has replaced the file."""
        file = self._files.get(key)
        if file is None or not os.path.isfile(file) or os.path.realpath(file) != file:
            return None
        return file


def drawn_folder() -> Path:
    """The folder of the library that is drawn for a person without one, in the user's cache.

    Each sample model has its own, since the embeddings of two cannot be compared.
    """
    return cache_folder() / "drawn" / sha256_of(weights_file(SAMPLE_FOLDER))[:12]


def fill_with_drawn_clips(library: Library, folder: Path, show_progress: bool) -> None:
    """Draw clips into a folder and add them, unless the library has them all."""
    if sum(os.path.isfile(file.path) for file in library.index.files()) >= CLIPS:
        return
    chosen = choose(np.random.default_rng(SEED))
    paths = [str(path) for path in draw_library(folder, chosen, show_progress)]
    metadata = {path: clip._asdict() for path, clip in zip(paths, chosen, strict=True)}
    with library.adding() as index:
        for outcome in index_files(index, library.model, paths, metadata=metadata):
            if outcome.error is not None:
                raise RuntimeError(f"{outcome.name}: {outcome.error}")
