"""Where MLflow keeps the runs of this project, and the tags that identify the code. Nothing here calls MLflow."""

import logging
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import UserError

COMMIT = "mlflow.source.git.commit"
WRITTEN_BY_DVC = ("dvc.lock", "results/summary.json", "results/metrics", "results/computed_on.json")


def uri(root: Path) -> str:
    """Return where MLflow keeps its runs: ``MLFLOW_TRACKING_URI``, else a database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(root)


def default_uri(root: Path) -> str:
    """Return the database in the project's folder."""
    return f"sqlite:///{root.resolve()}/tracking/mlflow.db"


def code_tags(root: Path) -> dict[str, str]:
    """Return tags with the commit, and whether the working tree differs from it."""
    elsewhere = [f":!{path}" for path in WRITTEN_BY_DVC]
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", ".", *elsewhere)
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {COMMIT: commit or "unknown", "git_dirty": dirty}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _database(address: str) -> Path | None:
    """Return the file of an sqlite database, None for any other store."""
    prefix = "sqlite:///"
    return Path(address.removeprefix(prefix)).resolve() if address.startswith(prefix) else None


def lock_file(root: Path, address: str) -> Path:
    """Return the lock beside the database, the same for every process that uses the database; create its folder."""
    database = _database(address) or root / "tracking" / "mlflow"
    database.parent.mkdir(parents=True, exist_ok=True)
    return database.with_name(f"{database.name}.lock")


def refuse_moved(found: str, expected: str) -> None:
    """Refuse a project that was moved or copied: MLflow stores absolute paths, and would write to the old ones."""
    if found != expected and Path(found).parts[-3:] == Path(expected).parts[-3:]:
        raise UserError(
            f"{Path(expected).parents[1]} was made elsewhere: its artifacts lie in {found}; "
            "remove the folder tracking, then run `dvc repro`"
        )


def artifacts(address: str, experiment: str) -> str | None:
    """Return where an experiment's artifacts go: beside the database, or where the server decides.

    MLflow's own choice is a folder in the working directory: under ``mlflow run`` of a URL, the temporary clone.
    """
    database = _database(address)
    return str(database.parent / "artifacts" / experiment) if database else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow quiet while it opens a database: no two dozen lines on tables, no warning about its own code."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # MLflow 3.17 asks SQLAlchemy for a loader strategy that SQLAlchemy 2.1 deprecates.
            warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
