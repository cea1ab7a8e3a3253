"""Where MLflow keeps the runs of this project, and the tags that identify the code. Nothing here calls MLflow."""

import os
import re
import subprocess
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import quote, unquote

from pipeline.core.files import content_hash

COMMIT = "mlflow.source.git.commit"
WRITTEN_BY_DVC = ("dvc.lock", "results", "reports", "docs/images")  # by the pipeline, or copied from what it made
OWN = Path("tracking/mlflow.db")
SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)")


def uri(root: Path) -> str:
    """Return where MLflow keeps its runs: ``MLFLOW_TRACKING_URI``, else a database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root.resolve() / OWN)


def sqlite_uri(database: Path) -> str:
    """Return the address of a database, quoted; with its driver, since MLflow makes a folder of the quoted name else.

    Example:
        >>> sqlite_uri(Path("/home/me/50 %/mlflow.db"))
        'sqlite+pysqlite:////home/me/50%20%25/mlflow.db'
    """
    return f"sqlite+pysqlite:///{quote(str(database))}"


def database_of(address: str) -> Path | None:
    """Return the file of an SQLite database, None for any other store.

    Example:
        >>> database_of("sqlite:////home/me/50%20%25/mlflow.db").as_posix()
        '/home/me/50 %/mlflow.db'
    """
    found = SQLITE.match(address)
    return Path(unquote(found["path"])).resolve() if found else None


def without_password(text: str) -> str:
    """Return ``text`` with the user and the password of every address in it taken out.

    Example:
        >>> without_password("no answer from http://me:secret@host:5000/api")
        'no answer from http://***@host:5000/api'
        >>> without_password("postgresql://host/runs?user=me&password=secret")
        'postgresql://host/runs?user=me&password=***'
    """
    return re.sub(r"(password=)[^&\s'\"]+", r"\1***", re.sub(r"://[^\s/'\"]*@", "://***@", text))


def code_tags(root: Path) -> dict[str, str]:
    """Return tags with the commit, and whether the working tree differs from it in what the pipeline does not write."""
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


def lock_file(address: str) -> Path:
    """Return the lock that all processes on this machine share which use a store; create its folder.

    It stands beside an SQLite database. Two clones that open an empty PostgreSQL database at once would both make the
    tables, and fail.
    """
    shared = Path(gettempdir(), f"byzantine-pipeline-{os.getuid()}-{content_hash(address)}")
    database = database_of(address) or shared
    database.parent.mkdir(parents=True, exist_ok=True)
    return database.with_name(f"{database.name}.lock")


def artifacts(address: str, experiment: str) -> str | None:
    """Return where an experiment's artifacts go: beside the database, or where the server decides.

    MLflow's own choice is a folder in the working directory: under ``mlflow run`` of a URL, the temporary clone.
    """
    database = database_of(address)
    return (database.parent / "artifacts" / experiment).as_uri() if database else None
