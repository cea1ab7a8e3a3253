"""Clusters of several nodes, all on this machine."""

import pytest

from pipeline.runs import cluster


@pytest.fixture(scope="module", autouse=True)
def guarded():
    """Clusters ask for a token, which the driver has: Ray reads this as it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # what else runs here is no matter of these tests
        yield


@pytest.fixture
def nodes():
    """Starts a cluster: a head without cores, and nodes."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})

    def start(*described):
        return made, [made.add_node(**arguments) for arguments in described]

    cluster._connected.cache_clear()
    yield start
    ray.shutdown()
    made.shutdown()
    cluster._connected.cache_clear()
