"""A large run as actors on a Ray cluster.

Ray Data hands portions of items to actors, each of which is a `Worker` and writes its own parts. So
neither vectors nor features pass through Ray's object store.

An item may kill the process that works on it. Then the portion of that item is not written. Once
the others are written, its items go through again, one by one, and an item that kills three
processes gets a row with that error.

Ray ends a process whose cluster is gone. So it runs in a process of its own, and this one tells why
it ended.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ..errors import InputError, MdmmtError, MissingDependency, describe_error
from .parts import Parts
from .sources import decode, item_id
from .worker import Done, Work, Worker, error_row

CONNECT_WAIT_S = 10.0  # for the machine of an address to answer
START_WAIT_S = 180.0  # for Ray to connect or to start, with the imports of a cold disk
END_WAIT_S = 10.0  # for Ray to end
TRIES = 3  # of an item that kills the process that works on it
LIGHT_PORTION = 1024  # texts or feature files in a portion
HEAVY_PORTION = 16  # videos in a portion
PORTIONS_EACH = 4  # of an actor at least, so that all end at about the same time
OBJECT_STORE_BYTES = 256 << 20  # of a Ray that is started here; only names pass through it

KILLED = f"the process that worked on it has died, {TRIES} times"
NAME, REPORT = "name", "report"  # columns of the tables that go to an actor, and come back


class Actors(NamedTuple):
    """How many actors work, and what each of them asks Ray for."""

    number: int | None = None  # None: as many as the cluster has room for
    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None  # None: no declared memory


class Job(NamedTuple):
    """All that the process of Ray has to know."""

    address: str | None  # of the cluster; None: Ray is started on this machine
    actors: Actors
    work: Work
    names: list[bytes]
    light: bool  # whether an item takes milliseconds
    mark: str  # see `Parts.begin`
    settings: dict[str, Any]
    verbose: bool


def import_ray() -> Any:
    """Import Ray with its module for data, without its statistics of usage.

    Raises:
        MissingDependency: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray.data
    except ImportError as error:
        raise MissingDependency("mdmmt batch", "ray") from error
    return ray


def check_address(address: str) -> None:
    """Refuse the address of a cluster that does not answer.

    Raises:
        InputError: it is no address, or nothing answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise InputError(f"the address of the cluster is {address!r}, expected HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_WAIT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"nothing answers at {address} ({describe_error(error)}); expected the address of the "
            "head of a Ray cluster, as `ray start --head` shows it"
        ) from error


def run_on_ray(job: Job) -> Iterator[Done]:
    """Run a job; yield what became of each portion, as it is written.

    Raises:
        InputError: the cluster does not answer, has no room for an actor, or is gone; or the work
            cannot go on, such as on a full disk. What is written stays.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child_main, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()  # so that `recv` notices when the other end is gone
    try:
        if not ours.poll(START_WAIT_S):
            raise InputError(
                f"Ray has not answered within {START_WAIT_S:g} seconds; expected the address of "
                "the head of a Ray cluster of which this machine is a node, or no --cluster"
            )
        while (message := ours.recv()) is not None:
            if isinstance(message, str):
                raise InputError(message)
            yield message
        process.join(END_WAIT_S)
    except EOFError:
        raise InputError(
            "Ray has ended in the middle of the run, as its head was killed or is out of reach; "
            "what is written stays, and the same command goes on from there"
        ) from None
    finally:
        process.terminate()
        process.join(END_WAIT_S)
        process.kill()
        ours.close()


def _child_main(connection: Connection, job: Job) -> None:
    """Run a job in this process, and send what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    if not job.verbose:  # Ray prints about itself
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stdout.fileno())
        os.dup2(silence, sys.stderr.fileno())
    try:
        _run(connection.send, job)
        connection.send(None)
    except MdmmtError as error:
        connection.send(str(error))
    except BrokenPipeError:  # nobody waits for this process any more
        pass
    except Exception as error:  # Ray raises nearly any
        connection.send(
            f"Ray cannot go on: {_first_line(error)}; what is written stays, and the same command "
            "goes on from there"
        )


def _run(send: Callable[[Any], None], job: Job) -> None:
    ray = import_ray()
    if job.address is None:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=job.verbose,
        )
    else:
        ray.init(address=job.address, log_to_driver=job.verbose)
    try:
        count = _count_actors(ray.nodes(), job.actors)
        send(Done(0, 0, []))  # Ray has answered
        parts, work = Parts(job.work.out), job.work
        size = min(
            max(1, math.ceil(len(job.names) / (count * PORTIONS_EACH))),
            LIGHT_PORTION if job.light else HEAVY_PORTION,
        )
        _run_round(ray, send, job, job.mark, count, job.names, size, 0)
        if left := _left(parts, job.names):
            mark = parts.begin(job.settings)  # an actor of before can write no longer
            _run_round(ray, send, job, mark, count, left, 1, TRIES - 1)
        if left := _left(parts, left):
            mark = parts.begin(job.settings)
            for portion in _portions(left, LIGHT_PORTION):
                failures = [(decode(name), KILLED) for name in portion]
                rows = [error_row(*failure) for failure in failures]
                parts.write(mark, rows, work.kind, work.identity.sha256, work.identity.dim)
                send(Done(len(rows), 0, failures))
    finally:
        ray.shutdown()


def _run_round(
    ray: Any,
    send: Callable[[Any], None],
    job: Job,
    mark: str,
    count: int,
    names: Sequence[bytes],
    size: int,
    retries: int,
) -> None:
    """Have actors work on portions of names; one whose actor dies more than `retries` is left."""
    import pyarrow

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    tables = [
        pyarrow.table({NAME: pyarrow.array(portion, pyarrow.binary())})
        for portion in _portions(names, size)
    ]
    reports = ray.data.from_arrow(tables).map_batches(
        _Actor,
        fn_constructor_args=(job.work, mark),
        batch_size=size,  # one table at a time
        batch_format="pyarrow",
        # A portion that waits at an actor dies with it, so none does where deaths are counted.
        compute=ray.data.ActorPoolStrategy(
            size=count, max_tasks_in_flight_per_actor=1 if retries else 2
        ),
        num_cpus=job.actors.cpus,
        num_gpus=job.actors.gpus,
        memory=job.actors.memory_bytes,
        max_restarts=-1,
        max_task_retries=retries,
    )
    for batch in reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for report in batch[REPORT].to_pylist():
            done = Done(*json.loads(report))
            if done.fatal is not None:
                raise InputError(done.fatal)
            send(done)


class _Actor(Worker):
    """A worker as Ray Data calls it: a table of names in, a table of one report out."""

    def __call__(self, table: Any) -> Any:
        import pyarrow

        done = super().__call__([decode(name) for name in table[NAME].to_pylist()])
        return pyarrow.table({REPORT: [json.dumps(done)]})


def _portions(names: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (names[i : i + size] for i in range(0, len(names), size))


def _left(parts: Parts, names: Sequence[bytes]) -> list[bytes]:
    """The items that have no rows."""
    done = parts.done()
    return [name for name in names if item_id(decode(name)) not in done]


def _count_actors(nodes: Sequence[Mapping[str, Any]], actors: Actors) -> int:
    """How many actors work: the number that was asked for, or as many as there is room for."""
    demand = {"CPU": actors.cpus, "GPU": actors.gpus, "memory": actors.memory_bytes or 0}
    demand = {name: amount for name, amount in demand.items() if amount}
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    room = sum(
        min(int(one.get(name, 0) / amount + 1e-9) for name, amount in demand.items())
        for one in machines
    )
    if not room:
        most = {name: max((one.get(name, 0) for one in machines), default=0) for name in demand}
        raise InputError(
            f"no machine of the cluster has room for an actor, which asks for {_listed(demand)}, "
            f"and the most that one has is {_listed(most)}; expected actors that ask for less"
        )
    return actors.number or room


def _listed(resources: Mapping[str, float]) -> str:
    units = {"CPU": "CPUs", "GPU": "GPUs", "memory": "bytes of memory"}
    return ", ".join(f"{amount:g} {units[name]}" for name, amount in resources.items())


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
