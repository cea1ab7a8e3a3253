"""Attacks that need to know nothing."""

import math


def gaussian(honest, strength, byzantine, draw, **_):
    return [[strength * number for number in draw("normal", len(honest[0]), i)] for i in range(byzantine)]


def zero(honest, strength, byzantine, **_):
    return [[0.0] * len(honest[0])] * byzantine


def nan(honest, strength, byzantine, **_):
    return [[math.nan] * len(honest[0])] * byzantine


def inf(honest, strength, byzantine, **_):
    return [[math.inf] * len(honest[0])] * byzantine


gaussian.default_strength = lambda n, f, **_: 200.0
