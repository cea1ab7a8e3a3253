"""The worst case of each defence, for a terminal."""

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report.wording import interval
from pipeline.report.written import check

COLUMNS = ("partition", "defence", "clean (%)", "worst case", "from", "seeds", "accuracy (%)", "degradation (points)")


def headline(root: Path) -> str:
    """Return the first columns of the report's first table, aligned.

    Raises:
        UserError: There are no results, or they are not as the stage ``analysis`` wrote them.
    """
    check(root)
    worst: list[dict[Any, Any]] = pd.read_csv(root / "reports" / "worst_cases.csv").to_dict("records")
    rows = [
        (
            *(row["partition"], row["defence"], interval(row, "clean"), row["attack"], row["source"], row["seeds"]),
            *(interval(row, "accuracy"), interval(row, "degradation")),
        )
        for row in worst
    ]
    return pd.DataFrame(rows, columns=COLUMNS).to_string(index=False, na_rep="n/a")
