"""Where the pipeline keeps its files, relative to the project's folder."""

from pathlib import Path

RAW = Path("data/raw")
DATASET = Path("data/dataset.safetensors")
CACHE = Path(".cellcache")
