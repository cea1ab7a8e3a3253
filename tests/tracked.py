"""Reads what MLflow holds."""

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


def names(found):
    return sorted(run.info.run_name for run in found)


def ids(found):
    return {run.info.run_id for run in found}
