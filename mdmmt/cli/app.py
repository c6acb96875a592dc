"""`mdmmt app`: a page in the browser that searches a library."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, MissingDependency
from ..storage.paths import SAMPLE
from .common import (
    Commands,
    add_experts_options,
    add_model_options,
    add_time_limit_option,
    add_tokenizer_option,
    load_model,
    print_result,
    say,
    shows_bars,
)
from .search import DATABASE_HELP, WEIGHTS_DEFAULT, usable_weights

if TYPE_CHECKING:
    from ..app.library import Library

HOST, PORT = "127.0.0.1", 7860


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    app = commands.add_parser("app", help="search on a page in the browser")
    app.add_argument("--db", help=f"{DATABASE_HELP}; default: a library of drawn clips")
    add_model_options(app, WEIGHTS_DEFAULT)
    add_experts_options(app, "all of the model")
    add_tokenizer_option(app)
    add_time_limit_option(app)
    app.add_argument(
        "--host",
        default=HOST,
        help="the address to listen on; another one than %(default)s lets others search and play "
        "the library, without a password; default: %(default)s",
    )
    app.add_argument(
        "--port",
        type=_port,
        default=PORT,
        metavar="N",
        help="the port to listen on, 0 for any that is free; default: %(default)s",
    )
    app.set_defaults(run=_app)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 0 to 65535")
    return int(text)


def _app(arguments: argparse.Namespace) -> int:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it is read when Gradio is imported
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingDependency("the page", extra="app") from error
    from ..app.library import DATABASE, drawn_folder, fill_with_drawn_clips
    from ..app.server import is_loopback, make_server

    drawn = None
    if arguments.db is None:
        if arguments.weights not in (None, SAMPLE):
            raise InputError(
                f"--weights is {arguments.weights!r}, but the drawn library is that of the sample "
                "model; name a library of these weights with --db"
            )
        drawn, arguments.weights = drawn_folder(), SAMPLE
        drawn.mkdir(parents=True, exist_ok=True)
        arguments.db = str(drawn / DATABASE)
    with ExitStack() as stack:
        server_socket = stack.enter_context(_listen(arguments.host, arguments.port))
        library = stack.enter_context(_open_library(arguments))
        if drawn is not None:
            fill_with_drawn_clips(library, drawn / "clips", shows_bars())
        uploads = stack.enter_context(tempfile.TemporaryDirectory(prefix="mdmmt-app-"))
        server = make_server(library, arguments.host, Path(uploads))
        if not is_loopback(arguments.host):
            say("others can search and play the library, without a password", logging.WARNING)
        host, port = server_socket.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print_result(f"the page is http://{host}:{port}/ until Ctrl-C")
        sys.stdout.flush()
        server.run(sockets=[server_socket])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"port {port} of {host} cannot be opened ({error.strerror}); expected a free one, "
            "--port 0 finds one"
        ) from error


@contextmanager
def _open_library(arguments: argparse.Namespace) -> Iterator[Library]:
    """Open the database with its model; a new one that got no video is removed at the end."""
    from ..app.library import Library
    from ..search import Index
    from ..search.index import stored_weights
    from ..search.milvus import is_local, remove_local_database

    folder = Path(arguments.db).expanduser()
    is_new = is_local(arguments.db) and not folder.exists()
    is_empty = False
    with ExitStack() as stack:
        index = None
        if is_local(arguments.db) and not is_new:
            index = stack.enter_context(Index.open(arguments.db, read_only=True))
        if arguments.weights is None:
            stored = stored_weights(arguments.db) if index is None else index.weights
            arguments.weights = usable_weights(stored, arguments.db)
        model = load_model(arguments)
        if index is None:
            Index.open(arguments.db, model).close()  # makes it
            index = stack.enter_context(Index.open(arguments.db, read_only=True))
        index.check_model(model)
        library = Library(arguments.db, index, model)
        try:
            yield library
        finally:
            is_empty = is_new and not library.index.count()
            library.close()
    if is_empty:
        remove_local_database(folder)
