"""Reads what MLflow holds."""

from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import ViewType

from pipeline.tracking.runs import EXPERIMENTS
from pipeline.tracking.store import uri


def runs(root, stage="train", view=ViewType.ACTIVE_ONLY):
    client = MlflowClient(uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENTS[stage].name).experiment_id
    return list(client.search_runs([experiment], run_view_type=view))


def children(root, stage="train"):
    return [run for run in runs(root, stage) if "cell_key" in run.data.tags]


def current(found):
    return [run for run in found if run.data.tags["current"] == "true"]


def artifacts(run):
    """The folder of a run's artifacts."""
    return Path(unquote(urlparse(run.info.artifact_uri).path))


def names(found):
    return sorted(run.info.run_name for run in found)


def ids(found):
    return {run.info.run_id for run in found}
