"""Learning-rate schedules. Every module of this package registers its own by being imported."""

from pipeline.core.component import Registry
from pipeline.simulator.schedules.base import Schedule

SCHEDULES: Registry[Schedule] = Registry("schedule")
SCHEDULES.import_families(__name__, __path__)

__all__ = ["SCHEDULES", "Schedule"]
