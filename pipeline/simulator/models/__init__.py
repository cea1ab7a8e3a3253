"""Models. Every module of this package registers its own by being imported."""

from pipeline.core.component import Registry
from pipeline.simulator.models.base import Model, Network

MODELS: Registry[Model] = Registry("model")
MODELS.import_families(__name__, __path__)

__all__ = ["MODELS", "Model", "Network"]
