"""A Ray cluster of several nodes on this machine, for tests.

The cluster runs in a process of its own, since Ray opens connections that the tests forbid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from s3_server import KEYS

NODE_BYTES = 100 << 20  # of the object store of a node
# A file whose name has one of these words is dangerous to a Ray worker that opens it.
HOOK = """
import os, signal, sys, time
if any("default_worker" in part for part in sys.orig_argv):
    def hook(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)):
            name = os.path.basename(os.fsdecode(args[0]))
            if "poison" in name:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "slow" in name:
                time.sleep(0.5)
    sys.addaudithook(hook)
"""
STATE = """
import json, ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
print(json.dumps(ray.available_resources()))
"""


class RayCluster:
    """A head that works on nothing, and nodes of one CPU and one declared GPU each.

    Args:
        folder: for the hook.
        nodes: how many, beside the head.
        patience_s: after which Ray gives a head up.
    """

    def __init__(self, folder: Path, nodes: int = 2, patience_s: int = 5) -> None:
        (folder / "sitecustomize.py").write_text(HOOK)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(patience_s),
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
            **KEYS,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.env,
        )
        self.address, self.session = self._answer().split(maxsplit=1)

    def ask(self, what: str) -> str:
        """Have something done: 'remove node' or 'remove head'."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        while line := self._process.stdout.readline():
            if line.startswith("> "):
                return line[2:].strip()
        raise RuntimeError("the cluster has ended")

    def start(self, *arguments: object, cluster: bool = True) -> subprocess.Popen:
        """Start `mdmmt batch` on the cluster, or without it."""
        where = [f"--cluster={self.address}"] if cluster else []
        return subprocess.Popen(
            [sys.executable, "-m", "mdmmt", "batch", *map(str, arguments), *where],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, cluster: bool = True) -> subprocess.CompletedProcess:
        """Run `mdmmt batch` on the cluster, or without it, to its end."""
        process = self.start(*arguments, cluster=cluster)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def workers(self) -> list[int]:
        """The processes of the actors that work for `mdmmt batch`."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _reads(path).startswith(b"ray::MapWorker")
            and self._process.pid in _ancestors(path.parent)
        ]

    def free(self) -> dict[str, float]:
        """The resources that no actor has."""
        done = subprocess.run(
            [sys.executable, "-c", STATE, self.address],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)


def wait_for(condition, limit_s: float = 600.0) -> None:
    """Wait until a condition holds."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it has not come about"
        time.sleep(0.1)


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def _ancestors(process: Path) -> list[int]:
    found = []
    while status := _reads(process / "stat"):
        found.append(int(status.rpartition(b")")[2].split()[1]))
        process = Path("/proc", str(found[-1]))
    return found


def main(nodes: int) -> None:
    from ray.cluster_utils import Cluster

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = {"object_store_memory": NODE_BYTES}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **given}
    )
    workers = [cluster.add_node(num_cpus=1, num_gpus=1, **given) for _ in range(nodes)]
    cluster.wait_for_nodes()
    print(f"> {cluster.address} {cluster.head_node.get_session_dir_path()}", flush=True)
    for line in sys.stdin:
        if line.strip() == "remove node":
            cluster.remove_node(workers.pop(), allow_graceful=False)
        elif line.strip() == "add node":
            workers.append(cluster.add_node(num_cpus=1, num_gpus=1, **given))
        elif line.strip() == "remove head":
            cluster.remove_node(cluster.head_node, allow_graceful=False)
        print("> done", flush=True)
    for node in workers:
        cluster.remove_node(node, allow_graceful=False)
    if cluster.head_node is not None:
        cluster.remove_node(cluster.head_node, allow_graceful=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
