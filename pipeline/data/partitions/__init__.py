"""Partitions: who holds which samples. Every module of this package registers its own by being imported."""

from pipeline.core.component import Registry
from pipeline.data.partitions.base import Partition, Shares

PARTITIONS: Registry[Partition] = Registry("partition")
PARTITIONS.import_families(__name__, __path__)

__all__ = ["PARTITIONS", "Partition", "Shares"]
