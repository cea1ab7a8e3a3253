"""What several test files share."""

import warnings

import numpy as np
import pytest
import torch

collect_ignore_glob = ["*conftest.py"]  # not searched for doctests: pytest knows one module of that name at a time

pytest.register_assert_rewrite("aggregator_contract", "conditions", "inputs", "support")


@pytest.fixture(scope="session", autouse=True)
def _in_process():
    """Has tests train in their own process: it would cost each of them seconds to start others."""
    from support import InProcess

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runs.execution.Pool", InProcess)
        yield


@pytest.fixture
def global_generators_untouched():
    """Fails the test if it draws from, or seeds, PyTorch's or NumPy's global generator."""
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(torch_before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.fixture
def no_mlflow_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A database without experiments: creating its tables takes seconds, so tests start from a copy of the file."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of MLflow's own code; Tracker is tested without this
        MlflowClient(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def root(tmp_path, database, no_mlflow_environment):
    """A project with an empty MLflow database."""
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking" / "mlflow.db").write_bytes(database)
    return tmp_path


@pytest.fixture
def tracker(root):
    from made_up import DATA_HASH, params

    from pipeline.tracking.tracker import Tracker

    return Tracker(root, params(), DATA_HASH)
