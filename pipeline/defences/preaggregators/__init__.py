"""Pre-aggregations. Every module of this package registers its own by being imported."""

from pipeline.core.component import Registry
from pipeline.defences.preaggregators.base import Mixed, PreAggregator

PREAGGREGATORS: Registry[PreAggregator] = Registry("pre-aggregation")
PREAGGREGATORS.import_families(__name__, __path__)

__all__ = ["PREAGGREGATORS", "Mixed", "PreAggregator"]
