"""Sources of labelled images. Every module of this package registers its own by being imported."""

from pipeline.core.component import Registry
from pipeline.data.sources.base import Format, Source

SOURCES: Registry[Source] = Registry("data source")
SOURCES.import_families(__name__, __path__)

__all__ = ["SOURCES", "Format", "Source"]
