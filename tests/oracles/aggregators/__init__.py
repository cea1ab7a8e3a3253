"""Slow twins of the aggregation rules: the aggregate of ``vectors``, a list of lists, for f tolerated ones.

A twin may carry ``float32_error``: by how much float32 vectors may move the result, 1e-5 unless given.
"""

SIGNATURE = "(vectors, f)"
