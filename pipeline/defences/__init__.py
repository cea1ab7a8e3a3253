"""Aggregation rules, pre-aggregations, and their composition."""
