"""The connection to MLflow: opened, or refused within seconds, with the experiments that the runs stand in."""

import errno
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

# Set before the import: no usage reports to MLflow's makers, and no two lines of addresses for every finished run.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as databases
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from pipeline.core.errors import UserError
from pipeline.core.files import replacing
from pipeline.tracking.runs import EXPERIMENTS, SAVED_VIEW, Experiment, experiment_tags, same_view
from pipeline.tracking.store import artifacts, database_of, sqlite_uri, without_password

ANSWERS_IN = 5  # seconds within which a server must answer at first
LONGEST = 500  # characters of a cause
FULL = ("database or disk is full", os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
THROWN_BY = re.compile(r"^\(sqlite3\.\w+\) ")  # SQLAlchemy puts the class of the error first
FAULTS = (MlflowException, SQLAlchemyError, ImportError, OSError)  # OSError: of files, sockets and requests
databases.MAX_RETRY_COUNT = 1  # MLflow would try for 100 s, whatever the fault
os.environ.setdefault("PGCONNECT_TIMEOUT", str(ANSWERS_IN))
for name in ("mlflow", "alembic", "urllib3"):  # what matters comes as an exception, and is told once
    logging.getLogger(name).setLevel(logging.CRITICAL)


def wait_at_most(seconds: int, repeats: int) -> None:
    """Limit how long a server is waited for, unless the environment does: MLflow repeats for almost five minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(repeats))


@contextmanager
def faults_told(address: str) -> Iterator[None]:
    """Turn what MLflow raises into one line without passwords.

    Raises:
        UserError: MLflow at ``address`` cannot be reached, or refuses.
    """
    try:
        yield
    except FAULTS as error:
        cause = " ".join(str(error).partition("\n[SQL")[0].split()) or type(error).__name__
        remedy = "; make room there" if any(words in cause for words in FULL) else ""
        told = f"MLflow at {database_of(address) or address}: {THROWN_BY.sub('', cause)}"
        raise UserError(without_password(told)[:LONGEST] + remedy) from None


def client(address: str) -> MlflowClient:
    """Return a client of what answers at ``address``; a database that is missing is made, whole or not at all."""
    if address.startswith(("http://", "https://")):
        host = get_default_host_creds(address)  # type: ignore[no-untyped-call]
        http_request(host, "/health", "GET", timeout=ANSWERS_IN, max_retries=0)  # type: ignore[no-untyped-call]
    database = database_of(address)
    with _without_its_warning():
        if database and not database.exists():
            with replacing(database) as temporary:
                MlflowClient(sqlite_uri(temporary))
        return MlflowClient(address)


@contextmanager
def _without_its_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        # MLflow 3.17 asks SQLAlchemy for a loader strategy that SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
        yield


def experiments(client: MlflowClient, address: str) -> Mapping[str, str]:
    """Return the id of each stage's experiment; those that are missing are made."""
    return {stage: _experiment(client, address, experiment) for stage, experiment in EXPERIMENTS.items()}


def _experiment(client: MlflowClient, address: str, experiment: Experiment) -> str:
    """Return the id of an experiment, ours or one that ``mlflow run --experiment-name`` has just created."""
    tags = experiment_tags(experiment)
    found = client.get_experiment_by_name(experiment.name)
    if found is None:
        try:
            location = artifacts(address, experiment.name)
            return str(client.create_experiment(experiment.name, artifact_location=location, tags=tags))
        except MlflowException:  # another clone may have made it meanwhile
            found = client.get_experiment_by_name(experiment.name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for name, tag in tags.items():
        held = found.tags.get(name)
        if held is None or (name.startswith(SAVED_VIEW) and not same_view(held, tag)):
            client.set_experiment_tag(found.experiment_id, name, tag)
    return str(found.experiment_id)
