"""Fixtures for the tests of engine=ray: a test cluster of two nodes, real processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster as ProcessCluster


@pytest.fixture
def two_nodes() -> Iterator[ProcessCluster]:
    """A head and a further node, a CPU each."""
    import ray
    from ray.cluster_utils import Cluster as ProcessCluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    # Ray misses a dead node after five seconds instead of fifteen.
    health = {"health_check_period_ms": 1000, "health_check_initial_delay_ms": 1000}
    cluster = ProcessCluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False, "_system_config": health}
    )
    try:
        cluster.add_node(**node)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
