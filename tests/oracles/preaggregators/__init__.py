"""Slow twins of the pre-aggregations: the mapped vectors, for ``vectors``, a list of lists, and f tolerated ones."""

SIGNATURE = "(vectors, f)"
