"""Local updates: what a worker computes in a round. Every module of this package registers its own on import."""

from pipeline.core.component import Registry
from pipeline.simulator.local_updates.base import LocalUpdate

LOCAL_UPDATES: Registry[LocalUpdate] = Registry("local update")
LOCAL_UPDATES.import_families(__name__, __path__)

__all__ = ["LOCAL_UPDATES", "LocalUpdate"]
