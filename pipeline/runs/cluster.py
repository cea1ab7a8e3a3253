"""The workers of a Ray cluster: they are handed tasks as those of ``pool.py`` are; what one leaves undone is repeated.

Ray is an extra. It is imported, and the cluster asked, when there is a first task: what is known already needs neither.
A task asks for a GPU, a core, or a share of them; which node it runs on is for Ray to choose, so nodes may come and go.
"""

import itertools
import math
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stdout
from functools import cache, cached_property
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil

from pipeline.core.environment import environment
from pipeline.core.errors import UserError
from pipeline.core.identity import PACKAGE
from pipeline.runs.cluster_worker import Mailbox, Raised, Setting, work
from pipeline.runs.pool import Task, cores
from pipeline.runs.progress import WholeLines

AUTO = "auto"  # the cluster that this machine belongs to; if there is none, one of this machine for as long as we run
REPEATS = 3  # of a task whose worker died: what kills its worker each time ends the run, or is halved
MEMORY = "OutOfMemoryError"  # Ray ends a worker when its node has hardly any memory left, whoever uses it
SECONDS = 0.5  # between two looks at what the workers tell
ANSWERS_WITHIN = 5.0  # seconds, of an address
HERE = "127.0.0.1"

NOT_INSTALLED = "execution.cluster: Ray is not installed here; `pip install -e '.[cluster]'` installs it"
UNREACHABLE = (
    "execution.cluster = {address!r}: nobody answers there ({fault}); `ray start --head` starts a cluster, "
    "docs/scale.md says how"
)
NOT_ADMITTED = (
    "execution.cluster = {address!r}: {fault}; a cluster admits who has its token, RAY_AUTH_TOKEN or ~/.ray/auth_token"
)
DIED = (
    "execution.cluster: {count} workers died over the same batch, the last one of {fault}; "
    "if a system kills them to get memory back, lower execution.processes or execution.memory_gb"
)

# Ray reads them as it is imported: it asks for a token, reports to nobody, and tries to connect for seconds only.
VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "5",
}

_connecting = threading.Lock()
_stopping = threading.Event()
_numbers = itertools.count()


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Make calls in a thread each, and wait for all; when one fails, the others are stopped where they use a pool.

    Raises:
        Exception: What the first that failed has raised.
    """
    with redirect_stdout(WholeLines(sys.stdout)), ThreadPoolExecutor(max(1, len(calls))) as threads:
        futures = [threads.submit(call) for call in calls]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            _stopping.set()
            raise


class Shares(NamedTuple):
    """How the GPUs or cores of a cluster are shared out.

    Attributes:
        size: Tasks at a time.
        each: Tasks at a time on one GPU or core.
        neighbours: Tasks at a time that share one memory: that of a GPU, or of the largest node.
    """

    size: int
    each: int
    neighbours: int


def shares(counts: Sequence[int], wanted: int | Literal["auto"], unit: str) -> Shares:
    """Return how many tasks work at a time, and where.

    Args:
        counts: GPUs or cores of each node.
        wanted: ``execution.processes``; ``auto``: one for each GPU or core.
        unit: ``GPU`` or ``CPU``.

    Raises:
        UserError: There is none.

    Example:
        >>> shares([2, 2], "auto", "GPU")
        Shares(size=4, each=1, neighbours=1)
        >>> shares([2, 1], 5, "GPU")
        Shares(size=5, each=2, neighbours=2)
        >>> shares([16, 8], "auto", "CPU")
        Shares(size=24, each=1, neighbours=16)
    """
    if not sum(counts):
        raise UserError(f"execution.cluster: no node of the cluster has a {unit} to train on")
    size = sum(counts) if wanted == "auto" else wanted
    each = ceil(size / sum(counts))
    return Shares(size, each, each if unit == "GPU" else each * max(counts))


class ClusterPool:
    """Tasks on a cluster, as :class:`pipeline.runs.pool.Pool` has them in processes."""

    def __init__(
        self,
        address: str,
        unit: Literal["GPU", "CPU"],
        wanted: int | Literal["auto"],
        file: Path,
        prepare: Callable[..., Any],
        *arguments: Any,
    ) -> None:
        """Describe the pool; nothing is asked of the cluster before there is a task.

        Args:
            address: ``host:port`` of the cluster's head, or ``auto``.
            unit: What a task needs one of, or a share.
            wanted: Tasks at a time; ``auto``: one for each unit.
            file: Sent to every node, once.
            prepare: Called in each worker before its first task, as ``prepare(file there, neighbours, *arguments)``;
                see :class:`Shares`. What it returns is the first argument of every task.
            arguments: Of ``prepare``.
        """
        self._address, self._unit, self._wanted, self._file = address, unit, wanted, file
        self._prepare, self._arguments = prepare, arguments

    def __enter__(self) -> "ClusterPool":
        """Do nothing: workers start with their first task."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: a run that ends takes its tasks along."""

    @property
    def size(self) -> int:
        """How many tasks the cluster works on at a time, as it is when it is first asked."""
        return self._shares.size

    def run(self, waiting: list[Task]) -> Iterator[tuple[Task, Any]]:
        """Work on tasks; see :meth:`pipeline.runs.pool.Pool.run`.

        Yields:
            Each task with what its function returned, or None where Ray ended its workers for want of memory.

        Raises:
            UserError: A task raised it, workers died over one task again and again, or there is no such cluster.
        """
        running = dict[Any, _Running]()
        at_once = math.inf if self._wanted == "auto" else self._wanted  # Ray holds the others ready for any new node
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    self._submit(_Running(waiting.pop(0), next(_numbers)), running)
                yield from self._ended(running)
                if _stopping.is_set():
                    raise KeyboardInterrupt
        finally:
            for reference in running:
                self._cluster.ray.cancel(reference, force=True)

    @cached_property
    def _cluster(self) -> "_Cluster":
        return connected(self._address)

    @cached_property
    def _shares(self) -> Shares:
        return shares(self._cluster.counts(self._unit), self._wanted, self._unit)

    @cached_property
    def _setting(self) -> Any:
        """What a worker needs before its first task, in the object store."""
        arguments = (self._shares.neighbours, *self._arguments)
        prepare = self._cluster.pickled((self._prepare, arguments))
        content = np.fromfile(self._file, dtype=np.uint8)
        name = sha256(prepare + sha256(content.data).digest()).hexdigest()
        return self._cluster.ray.put(Setting(name, content, prepare))

    def _submit(self, one: "_Running", running: dict[Any, "_Running"]) -> None:
        share = 1 / self._shares.each
        asked = {"num_gpus": share, "num_cpus": 0} if self._unit == "GPU" else {"num_cpus": share}
        running[self._cluster.submit(one, self._setting, asked)] = one

    def _ended(self, running: dict[Any, "_Running"]) -> Iterator[tuple[Task, Any]]:
        """Pass on what the workers tell; yield the tasks that have ended, and start again those that were lost."""
        ended = self._cluster.wait(list(running))
        by_number = {one.number: one for one in running.values()}
        for number, told in self._cluster.letters(list(by_number)):
            by_number[number].task.told(*told)
        for reference in ended:
            one, answer = running.pop(reference), self._cluster.answer(reference)
            if not isinstance(answer, _Lost):
                yield one.task, answer
            elif one.deaths < REPEATS:
                self._submit(one._replace(deaths=one.deaths + 1), running)
            elif answer.fault == MEMORY:
                yield one.task, None
            else:
                raise UserError(DIED.format(count=one.deaths + 1, fault=answer.fault))


class _Running(NamedTuple):
    task: Task
    number: int  # under which its worker tells
    deaths: int = 0  # of workers over it


class _Lost(NamedTuple):
    fault: str  # Ray's name of it


class _Cluster:
    """The connection of this process to a cluster, with a mailbox for what the workers tell."""

    def __init__(self, ray: Any) -> None:
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self.ray = ray
        self._work = ray.remote(max_retries=0, max_calls=0)(work)  # a worker outlives its task, on a GPU, too
        self._mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).options(scheduling_strategy=here).remote()

    def counts(self, unit: str) -> list[int]:
        """Return the GPUs or cores of each node that is there."""
        return [int(node["Resources"].get(unit, 0)) for node in self.ray.nodes() if node["Alive"]]

    def pickled(self, value: Any) -> bytes:
        """Return ``value`` as bytes; what is defined in a notebook or script travels along."""
        pickled: bytes = self.ray.cloudpickle.dumps(value)
        return pickled

    def submit(self, one: _Running, setting: Any, asked: Mapping[str, float]) -> Any:
        """Return Ray's reference to a task, which waits for the resources that are asked for."""
        call = self.pickled((one.task.function, one.task.arguments))
        return self._work.options(**asked).remote(setting, one.number, call, self._mailbox)

    def wait(self, references: Sequence[Any]) -> list[Any]:
        """Return the references whose tasks have ended, within a moment."""
        self.ray.wait(references, timeout=SECONDS)
        ended: list[Any] = self.ray.wait(references, num_returns=len(references), timeout=0)[0]
        return ended

    def letters(self, numbers: Sequence[int]) -> list[tuple[int, tuple[Any, ...]]]:
        """Return what the workers on the tasks with these numbers have told since the last time.

        What a mailbox held that has died is lost: it is progress, and no result.
        """
        try:
            taken: list[tuple[int, tuple[Any, ...]]] = self.ray.get(self._mailbox.take.remote(numbers))
        except self.ray.exceptions.RayError:
            return []
        return taken

    def answer(self, reference: Any) -> Any:
        """Return what a task returned, or that it was lost.

        Raises:
            UserError: The task raised it.
            OSError: The system refused something to the task.
            RuntimeError: The task raised anything else.
        """
        errors = self.ray.exceptions
        try:
            answer = self.ray.get(reference)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            raise UserError(f"execution.cluster: a node cannot start a worker: {str(error).strip()}") from None
        except errors.RayError as error:
            return _Lost(type(error).__name__)
        if isinstance(answer, Raised):
            raise answer.error
        return answer


@cache
def _connected(address: str) -> _Cluster:
    joining = address if address != AUTO else AUTO if os.environ.get("RAY_ADDRESS") or _one_runs_here() else None
    if joining is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # or Ray listens on the network after all
    elif joining != AUTO:
        _check_answers(joining)
    ray = _imported()
    alone = {"num_cpus": cores(), "include_dashboard": False, "_node_ip_address": HERE}
    settings = {"address": joining} if joining else {"address": "local", **alone}
    with _own_handlers(), _silence():
        try:
            ray.init(**settings, runtime_env=_runtime(), log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            told = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise UserError(NOT_ADMITTED.format(address=address, fault=told)) from None
    return _Cluster(ray)


def connected(address: str) -> _Cluster:
    """Return the connection to the cluster at ``address``, which is made once.

    Raises:
        UserError: Ray is not installed, nobody answers at the address, or this machine is not admitted.
    """
    with _connecting:
        return _connected(address)


def _imported() -> Any:
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(NOT_INSTALLED) from None
    return ray


def _one_runs_here() -> bool:
    """Return whether a node of a cluster has been started by this user on this machine."""
    found = (process.info for process in psutil.process_iter(["name", "uids", "status"]))
    nodes = [info for info in found if info["name"] == "raylet" and info["status"] != psutil.STATUS_ZOMBIE]
    return any(info["uids"].real == os.getuid() for info in nodes)


def _check_answers(address: str) -> None:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
    except OSError as error:
        raise UserError(UNREACHABLE.format(address=address, fault=error.strerror or error)) from None


def _runtime() -> dict[str, Any]:
    """Return what every worker gets: the code of the package as it is in the working tree, and its environment."""
    variables = {**environment(), "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}  # see _choose_gpu
    return {
        "working_dir": str(PACKAGE.parent),
        "excludes": ["/*", f"!/{PACKAGE.name}", "__pycache__"],
        "env_vars": variables,
    }


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep what this process does at SIGTERM: Ray would replace it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing through to standard error: Ray tells there what its exception tells as well."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
