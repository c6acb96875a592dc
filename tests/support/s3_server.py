"""Moto's server, which speaks as S3 does."""

from __future__ import annotations

import urllib.request
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}  # it takes any
REGION = "us-east-1"


class S3Server:
    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.address = "{}:{}".format(*self._server.get_host_and_port())

    @property
    def options(self) -> str:
        """That follow the address of a bucket of this server."""
        return f"?region={REGION}&scheme=http&endpoint_override={self.address}"

    def client(self) -> Any:
        import boto3

        url = f"http://{self.address}"
        return boto3.client("s3", endpoint_url=url, region_name=REGION)

    def reset(self) -> None:
        """Remove all buckets."""
        self._call("reset")

    def refuse_all(self, refused: bool) -> None:
        """Give no right to any key, or all to each."""
        self._call("reset-auth", b"0" if refused else b"inf")

    def close(self) -> None:
        self._server.stop()

    def _call(self, what: str, data: bytes = b"") -> None:
        address = f"http://{self.address}/moto-api/{what}"
        request = urllib.request.Request(address, data, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request).close()
