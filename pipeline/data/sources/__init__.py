"""Sources of labelled data. Every module of this package registers its own when it is imported."""

from pipeline.core.component import Registry
from pipeline.data.format import Format
from pipeline.data.sources.base import Source

SOURCES: Registry[Source] = Registry("data source")
SOURCES.import_families(__name__, __path__)

__all__ = ["SOURCES", "Format", "Source"]
