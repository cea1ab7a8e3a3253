"""Slow twins of the learning-rate schedules: the factor at step t, counted from 0."""

SIGNATURE = "(t)"
