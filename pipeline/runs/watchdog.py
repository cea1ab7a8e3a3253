"""Ends a process whose starter is gone: a killed ``dvc`` leaves its stage running, a killed stage its processes."""

import os
import threading
import time
from collections.abc import Sequence

import psutil

SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ash"}
SECONDS = 0.5


def stop_with_dvc() -> None:
    """Under DVC, watch the process that started this one, through the shell between them; leave when it ends."""
    if "DVC_ROOT" not in os.environ:
        return
    parents = psutil.Process().parents()
    stop_with(parents[:2] if parents and parents[0].name() in SHELLS else parents[:1])


def stop_with_process(number: int) -> None:
    """Watch the process with that number; leave when it ends, at once if it has ended."""
    try:
        stop_with([psutil.Process(number)])
    except psutil.NoSuchProcess:
        os._exit(1)


def stop_with(watched: Sequence[psutil.Process]) -> None:
    """Watch the processes ``watched``; leave when one of them ends."""
    threading.Thread(target=_leave_with, args=(watched,), daemon=True).start()


def _leave_with(watched: Sequence[psutil.Process]) -> None:
    while all(_runs(process) for process in watched):
        time.sleep(SECONDS)
    os._exit(1)  # results are written whole or not at all, so there is nothing to tidy up


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
