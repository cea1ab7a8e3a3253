"""Aggregation rules. Every module of this package registers its own by being imported."""

from pipeline.core.component import Registry
from pipeline.defences.aggregators.base import Aggregated, Aggregator

AGGREGATORS: Registry[Aggregator] = Registry("aggregation rule")
AGGREGATORS.import_families(__name__, __path__)

__all__ = ["AGGREGATORS", "Aggregated", "Aggregator"]
