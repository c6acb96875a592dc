"""A Milvus server on this machine, of the wheel `milvus`, with data of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

REASON = (
    "the wheel `milvus` is not installed, which holds a Milvus server for Linux on x86-64; "
    "`make test-milvus` installs it"
)
# Shorter than a server has them by default, since the tests make many small collections.
SETTINGS = {
    "queryCoord.checkInterval": 100,
    "queryCoord.distPullInterval": 100,
    "proxy.timeTickInterval": 50,
}


PASSWORD = "Milvus"  # of the user root, as a new server has it


class MilvusServer:
    """A server that asks for a password, and starts again after a kill as the one that it was.

    A machine runs one such server at a time, as part of it listens on a port of its own choice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        self._port: int | None = None
        self._server: Any = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def uri(self) -> str:
        return f"http://root:{PASSWORD}@{self.address}"

    def start(self) -> None:
        from milvus import MilvusServer, MilvusServerConfig

        config = MilvusServerConfig(data_dir=str(self.folder))
        for name, value in SETTINGS.items():
            config.set(name, value)
        config.configurable_items["authorization_enabled"][1] = True
        if self._port is not None:
            config.update(proxy_port=self._port)
        for _ in range(3):  # on a busy machine, a server may crash while it starts
            self._server = MilvusServer(config, wait_for_started=False)
            self._server.start()
            self._port = self._server.listen_port
            if self._answers():
                return
            self.kill()
        raise RuntimeError(f"the Milvus server does not start, see {self.folder}/logs")

    def kill(self) -> None:
        process = self._server.server_proc
        process.kill()
        process.wait()
        self._server.stop()

    def freeze(self, frozen: bool) -> None:
        """Let it answer nothing, as a machine whose network is gone, or go on."""
        os.kill(self._server.server_proc.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"library_{next(self._numbers)}"
        client = self._client()
        client.create_database(name)
        client.close()
        return f"{self.uri}/{name}"

    def drop(self, uri: str) -> None:
        """Remove a database and what is in it."""
        from pymilvus import MilvusClient

        client = MilvusClient(uri)
        for collection in client.list_collections():
            client.drop_collection(collection)
        client.drop_database(uri.rpartition("/")[2])
        client.close()

    def _client(self) -> Any:
        from pymilvus import MilvusClient

        return MilvusClient(self.uri)

    def _answers(self) -> bool:
        """Wait until the server answers. False: it has crashed."""
        from pymilvus.exceptions import MilvusException

        deadline = time.monotonic() + 180
        while self._server.server_proc.poll() is None and time.monotonic() < deadline:
            try:
                client = self._client()
                client.list_databases()
                client.close()
                return True
            except MilvusException:
                time.sleep(0.2)
        return False
