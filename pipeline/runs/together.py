"""Processes that talk to each other: all of them run at the same time, or none.

They are forked from one process that has imported what they need, so that a dozen of them start in a second.
"""

import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import Event
from typing import Any

from pipeline.core.environment import environment
from pipeline.core.errors import UserError
from pipeline.runs.pool import interruptions_held, plain_errors, variables
from pipeline.runs.watchdog import stop_with_process


def together(count: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function(rank, *arguments)`` in ``count`` processes; return what that of rank 0 returns.

    When this process is interrupted, or one of them fails or dies, the others are killed.

    Args:
        count: How many.
        function: Of a module.
        arguments: Anything that can be pickled.

    Raises:
        UserError: One of them raised it, or died.
        OSError: The system refused something to one of them.
        RuntimeError: One of them raised anything else; the text is its traceback.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    readers, processes = [], []
    try:
        with variables({**environment(), **_loopback()}), interruptions_held():
            for rank in range(count):
                reader, writer = context.Pipe(duplex=False)
                readers.append(reader)
                processes.append(context.Process(target=_begin, args=(os.getpid(), writer, function, rank, *arguments)))
                processes[-1].start()
                writer.close()  # the process has the only other end: when it dies, reading meets the end of the file
        return _returned(readers)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
        for reader in readers:
            reader.close()


def _loopback() -> dict[str, str]:
    """Return what has gloo talk over the interface that no other machine can reach."""
    return {"GLOO_SOCKET_IFNAME": next(name for _, name in socket.if_nameindex() if name.startswith("lo"))}


def _returned(readers: list[Connection]) -> Any:
    """Wait until all have returned, or one has failed; return what the first returned."""
    waiting, of_first = list(readers), None
    while waiting:
        for reader in wait(waiting):
            assert isinstance(reader, Connection)
            try:
                failure, returned = reader.recv()
            except EOFError:
                raise UserError(f"process {readers.index(reader)} of {len(readers)} died") from None
            if failure is not None:
                raise failure
            waiting.remove(reader)
            if reader is readers[0]:
                of_first = returned
    return of_first


# What follows runs in the processes.


def _begin(parent: int, writer: Connection, function: Callable[..., Any], rank: int, *arguments: Any) -> None:
    stop_with_process(parent)
    try:
        with plain_errors():
            returned = function(rank, *arguments)
    except (UserError, OSError, RuntimeError) as error:
        writer.send((error, None))
        Event().wait()  # to be killed: if its connections were closed, others would fail of that, and be heard first
    else:
        writer.send((None, returned))
