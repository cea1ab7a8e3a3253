"""A pool of processes with environments of their own: it hands out tasks, and replaces a process that dies.

Each process is a pool of ``loky`` with a single worker, so that one that dies takes only its own task along; it starts
from scripts without a main guard and from notebooks. Nothing heavy is imported here: a process first learns to end with
its parent, then it imports what it works with.
"""

import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe, forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import loky
from loky.backend import get_context
from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor, TerminatedWorkerError

from pipeline.core.errors import UserError
from pipeline.runs.watchdog import stop_with_process

# Loky replaces a process that has grown by 300 MB, with a warning; ours keep freed memory on purpose.
KEPT_WHATEVER_ITS_SIZE = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}
DIED = (
    "execution: a process ended twice in the middle of the same batch {how}; "
    "if the system killed it to get memory back (SIGKILL), lower execution.processes or execution.memory_gb"
)

NOT_STARTED = (
    "execution.processes: a process could not be started: {cause}; "
    "each needs memory, some open files (ulimit -n) and room in /dev/shm"
)


_ahead: Mapping[str, str] | None = None  # the environment of the process that was started ahead


def start_ahead(environment: Mapping[str, str], module: str) -> None:
    """Start a process that imports ``module`` while this one imports its own; others are forked from it.

    Those are the processes of pools with this environment: they are there at once. For stages of ``python -m pipeline``
    only; from a script or a notebook, a forked process would run the main module again.
    """
    global _ahead
    wanted = {**environment, **KEPT_WHATEVER_ITS_SIZE}
    forkserver.set_forkserver_preload([module, "pipeline.runs.origin"])
    with suppress(OSError), interruptions_held(), variables(wanted):  # a pool that cannot start processes says so
        forkserver.ensure_running()
        _ahead = wanted


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Give this process further environment variables, which those that it starts inherit."""
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cores() -> int:
    """Return how many cores this process may use: by its affinity, and by the quota of its control group."""
    return int(loky.cpu_count())


@dataclass(frozen=True)
class Task:
    """A call for some process of a pool.

    Attributes:
        key: What the caller knows it by.
        function: Called there as ``function(prepared, *arguments, tell)``.
        arguments: Anything that can be pickled.
        told: Called here with what the function calls ``tell`` with; hears it again if its process dies and the task
            is repeated.
    """

    key: Any
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    told: Callable[..., None]


class Pool:
    """Processes that work on tasks, one at a time each."""

    def __init__(self, environments: Sequence[Mapping[str, str]], prepare: Callable[..., Any], *arguments: Any) -> None:
        """Describe the processes; entering the context starts them.

        Args:
            environments: For each process the variables that it has beside those of this process.
            prepare: Called in each process as it starts; what it returns is the first argument of every task.
            arguments: Of ``prepare``.
        """
        self._slots = [_Slot(environment, prepare, arguments) for environment in environments]

    def __enter__(self) -> "Pool":
        """Start the processes, without waiting for them."""
        try:
            for slot in self._slots:
                slot.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes."""
        for slot in self._slots:
            slot.stop()

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self._slots)

    def run(self, waiting: list[Task]) -> Iterator[tuple[Task, Any]]:
        """Work on tasks, from the first to the last.

        Args:
            waiting: Emptied as processes become free; the caller may add to it at each result.

        Yields:
            Each task with what its function returned, as they end.

        Raises:
            UserError: A task raised it, or a process died twice over one task.
            OSError: The system refused something to a task.
            RuntimeError: A task raised anything else; the text is its traceback.
        """
        idle, busy = list(self._slots), list[_Slot]()
        try:
            while waiting or busy:
                _hand_out(waiting, idle, busy)
                slot = _first_to_speak(busy)
                if slot.working():
                    continue
                busy.remove(slot)
                ended, returned = slot.task, slot.returned()
                idle.append(slot)
                _hand_out(waiting, idle, busy)
                yield ended, returned
        finally:
            for slot in busy:
                slot.stop()


def _hand_out(waiting: list[Task], idle: list["_Slot"], busy: list["_Slot"]) -> None:
    while waiting and idle:
        slot = idle.pop()
        busy.append(slot)
        slot.begin(waiting.pop(0))


def _first_to_speak(busy: list["_Slot"]) -> "_Slot":
    """Wait until a process tells something, or dies; return its slot."""
    heard = wait([slot.reader for slot in busy])
    return next(slot for slot in busy if slot.reader in heard)


class _Slot:
    """The place of one process, and of the one that replaces it."""

    task: Task
    reader: Connection  # of what the process tells
    _executor: ProcessPoolExecutor | None = None
    _prepared: Future[None]
    _future: Future[Any]
    _died = 0  # times over the present task

    def __init__(self, environment: Mapping[str, str], prepare: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._environment = {**environment, **KEPT_WHATEVER_ITS_SIZE}
        self._prepare, self._arguments = prepare, arguments

    def start(self) -> None:
        """Start a process.

        Raises:
            UserError: The system does not let it start.
        """
        try:
            self._start()
        except OSError as error:  # it names no file
            raise UserError(NOT_STARTED.format(cause=error.strerror or error)) from None

    def _start(self) -> None:
        self.reader, writer = Pipe(duplex=False)
        context = get_context("loky" if self._environment != _ahead else "forkserver")
        self._executor = ProcessPoolExecutor(
            max_workers=1, context=context, env=self._environment, initializer=_begin, initargs=(os.getpid(), writer)
        )
        with interruptions_held(), variables(self._environment):  # also for the one started ahead, if it must be anew
            self._prepared = self._executor.submit(_prepare, self._prepare, self._arguments)
        writer.close()  # the process has the only other end: when it dies, reading meets the end of the file

    def begin(self, task: Task) -> None:
        """Give the process a task."""
        self.task, self._died = task, 0
        self._submit()

    def working(self) -> bool:
        """Pass on what the process tells; return whether it still works on its task.

        Raises:
            UserError: It has died, as the one before it.
        """
        try:
            told = self.reader.recv()
        except (EOFError, OSError):
            self._replace()
            return True
        if told is not None:
            self.task.told(*told)
        return told is not None

    def returned(self) -> Any:
        """Return what the task's function returned, or raise what it, or the preparation, raised."""
        self._prepared.result()
        return self._future.result()

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
            self.reader.close()
            self._executor = None

    def _submit(self) -> None:
        if self._executor is None:
            self.start()
        assert self._executor is not None
        try:
            self._future = self._executor.submit(_call, self.task.function, self.task.arguments)
        except BrokenProcessPool:  # it has died since its last task
            self.stop()
            self._submit()

    def _replace(self) -> None:
        try:
            self._future.result()
        except TerminatedWorkerError as error:
            self._died += 1
            if self._died > 1:
                raise UserError(DIED.format(how="".join(re.findall(r"\{.+\}", str(error))))) from None
        self.stop()
        self._submit()


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Hold back Ctrl-C; a process that is started meanwhile never hears it, so that its parent alone decides."""
    resource_tracker.ensure_running()  # it would let interruptions through as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# What follows runs in the processes.

_prepared: Any = None
_writer: Connection


def _begin(parent: int, writer: Connection) -> None:
    global _writer
    stop_with_process(parent)
    _writer = writer


def _prepare(prepare: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _prepared
    with plain_errors():
        _prepared = prepare(*arguments)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        with plain_errors():
            return function(_prepared, *arguments, lambda *told: _writer.send(told))
    finally:
        _writer.send(None)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what may not survive the way to the parent into its text."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, error.filename) from None
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # PyTorch's own error has no class
            raise MemoryError from None
        raise RuntimeError(traceback.format_exc()) from None
