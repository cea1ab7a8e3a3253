"""What a soak test tried, and what came of it."""

import os
from collections import Counter

SOAK = "SOAK" in os.environ  # all trials; otherwise the sample of CI


class Tally:
    """Counts of outcomes by kind of trial, printed as the table of docs/reliability.md."""

    def __init__(self, *outcomes):
        self.outcomes, self.counts, self.lost = outcomes, {}, []

    def note(self, kind, outcome, told=""):
        """Count a trial; an outcome that is none of the good ones is lost."""
        self.counts.setdefault(kind, Counter())[outcome] += 1
        if outcome not in self.outcomes:
            self.lost.append(f"{kind}: {outcome} {told}")

    def __str__(self):
        heads = ["what", "tried", *self.outcomes, "lost"]
        rows = []
        for kind, counts in self.counts.items():
            good = [counts[outcome] for outcome in self.outcomes]
            rows.append([kind, counts.total(), *good, counts.total() - sum(good)])
        rows.append(["all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))])
        lines = [heads, ["---"] * len(heads), *rows]
        return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
