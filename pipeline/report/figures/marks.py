"""Marks and limits that the figures of the searches share; degradations are in percentage points."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.figures.style import GREY

LIMITS = (-105, 105)  # what a degradation can be; intervals of few seeds reach far beyond
DEGRADATION = "degradation (percentage points)"
TRIAL, CONFIRMED = 2.5, {"literature": ("s", 5.0), "found": ("*", 9.0)}  # sizes; markers with theirs
ZERO: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "zorder": 0}


def dot(colour: str, size: float) -> dict[str, Any]:
    """Return the look of a small filled point."""
    return {"color": colour, "marker": "o", "markersize": size, "linestyle": "none"}


def outlined(marker: str, size: float, colour: str = "black") -> dict[str, Any]:
    """Return the look of an open mark."""
    return {"color": colour, "marker": marker, "markersize": size, "markerfacecolor": "white", "linestyle": "none"}


def bars(half_width: pd.Series) -> pd.Series:
    """Return half widths in percentage points, 0 (no bar) where there is none."""
    return 100 * half_width.fillna(0)


def limits(*tables: pd.DataFrame) -> tuple[float, float]:
    """Return limits (percentage points) that hold every point with its interval, cut to what is possible."""
    half_widths = [(table, table["degradation_half_width"].fillna(0)) for table in tables]
    ends = pd.concat([table["degradation"] + sign * reach for table, reach in half_widths for sign in (-1, 1)])
    margin = 0.04 * (ends.max() - ends.min()) + 0.005
    low, high = np.clip([100 * (ends.min() - margin), 100 * (ends.max() + margin)], *LIMITS)
    return float(low), float(high)
