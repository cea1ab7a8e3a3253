"""The Pareto front of mode stealth: to an attacker, more damage is better, and so is being flagged less."""

import numpy as np
import pandas as pd


def non_dominated(rows: pd.DataFrame) -> np.ndarray:
    """Return which rows form the Pareto front of ``degradation`` (more is better) and ``flagged`` (less is better).

    A row is dominated if another row is at least as good in both and better in one. Equal rows are kept or dropped
    together.

    Example:
        >>> table = pd.DataFrame({"degradation": [0.5, 0.4, 0.4, 0.6], "flagged": [0.2, 0.1, 0.3, 0.9]})
        >>> non_dominated(table).tolist()
        [True, True, False, True]
    """
    gained, shown = rows["degradation"].to_numpy(), rows["flagged"].to_numpy()
    as_good = (gained >= gained[:, None]) & (shown <= shown[:, None])
    better = (gained > gained[:, None]) | (shown < shown[:, None])
    dominated: np.ndarray = np.any(as_good & better, axis=1)
    return ~dominated
