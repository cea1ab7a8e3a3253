"""The database in the project's folder: whole, and up to date with the place where it stands. Nothing calls MLflow."""

import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse
from uuid import uuid4

from pipeline.tracking.clone import Clone

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FILES = ("", "-journal", "-wal", "-shm")  # a journal left behind would be played back into the next database
PATIENCE = 20  # seconds to wait for another process that writes
LOCATED = (("experiments", "artifact_location"), ("runs", "artifact_uri"))


def set_damaged_aside(database: Path) -> None:
    """Rename a database that is cut, overwritten, or none of MLflow's, and say so: the results are the truth."""
    if database.exists() and (damage := _damage(database)):
        aside = database.with_name(f"{database.name}.damaged-{uuid4().hex[:8]}")
        for suffix in FILES:
            if (file := database.with_name(f"{database.name}{suffix}")).exists():
                file.rename(f"{aside}{suffix}")
        print(
            f"warning: {database}: not a whole database of MLflow ({damage}); it is now {aside.name}, "
            "and `python -m pipeline track` puts the results into a new one",
            file=sys.stderr,
            flush=True,
        )


def _damage(database: Path) -> str | None:
    try:
        with closing(_open(database)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in DAMAGED:
            raise OSError(str(error)) from None  # the caller names the database
        return str(error)
    if verdict != "ok":
        return " ".join(str(verdict).split())
    return None if tables >= {"alembic_version", *(table for table, _ in LOCATED)} else "it has other tables"


def move_along(database: Path, root: Path, clone: Clone) -> None:
    """Bring a database up to date that was moved or copied with its project, and its runs with the clone's identity.

    MLflow stores absolute places of artifacts, and has no command that changes them.

    Args:
        database: That of the project.
        root: The project's folder.
        clone: Its identity, and the one that its runs bear.
    """
    with closing(_open(database)) as connection, connection:
        for old in _former_roots(connection, root):
            for before, after in ((old.as_uri(), root.as_uri()), (str(old), str(root))):
                _relocate(connection, f"{before}/", f"{after}/")
        if clone.before != clone.id:
            renamed = (clone.id, clone.before)
            connection.execute("UPDATE tags SET value = ? WHERE key = 'scope' AND value = ?", renamed)


def _former_roots(connection: sqlite3.Connection, root: Path) -> Iterable[Path]:
    """Return the folders, other than ``root``, below which experiments keep their artifacts as this project does."""
    found = set()
    for name, location in connection.execute("SELECT name, artifact_location FROM experiments"):
        path = Path(unquote(urlparse(location).path) if location.startswith("file:") else location)
        if path.parts[-3:] == ("tracking", "artifacts", name):
            found.add(path.parents[2])
    return found - {root}


def _relocate(connection: sqlite3.Connection, before: str, after: str) -> None:
    for table, column in LOCATED:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (after, len(before) + 1, len(before), before),
        )


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=PATIENCE)
