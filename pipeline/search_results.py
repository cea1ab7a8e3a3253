"""Stub until branch `search` is merged."""

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class StudyResult:
    """What one study left behind."""

    name: str
    description: dict[str, Any]
    trials: pd.DataFrame
    confirmation: pd.DataFrame
    transfer: pd.DataFrame | None
