"""Attacks that use earlier steps."""

import math

from oracles import NoAnswer
from oracles.arithmetic import dot, mean_vector, plus, unit
from oracles.attacks import omniscient


def mimic(honest, strength, byzantine, draw=None, warmup=1, target=0, earlier=(), **_):
    mean = direction = None
    for t, vectors in enumerate([*earlier, honest][:warmup]):
        mu = mean_vector(vectors)
        mean = mu if t == 0 else plus([t / (t + 1) * m for m in mean], 1 / (t + 1), mu)
        start = draw("normal", len(mu)) if t == 0 else direction
        total = [0.0] * len(mu)
        for vector in vectors:
            offset = plus(vector, -1, mean)
            total = plus(total, dot(offset, start), offset)
        old = [0.0] * len(mu) if t == 0 else direction
        direction = unit(plus([t / (t + 1) * z for z in old], 1 / (t + 1), unit(total)))
        along = [dot(vector, direction) for vector in vectors]
        target = along.index(max(along))
    return [list(honest[target]) for _ in range(byzantine)]


def rop(honest, strength, byzantine, previous, step=0, pi=1.0, lambda_=0.9, angle=270.0, **_):
    mu = mean_vector(honest)
    if len(mu) == 1:
        raise NoAnswer("on a line there is no orthogonal direction")
    kept = lambda_ if step else 0.0
    reference = plus([kept * a for a in previous], 1 - kept, mu)
    ones = [1.0] * len(mu)
    across = unit(plus(ones, -dot(ones, reference) / dot(reference, reference), reference))
    turned = [math.sin(math.radians(angle)) * p for p in across]
    turned = unit(plus(turned, math.cos(math.radians(angle)), unit(reference)))
    centre = plus([pi * a for a in previous], 1 - pi, mu)
    return [plus(centre, strength, turned) for _ in range(byzantine)]


rop.default_strength = omniscient.alie.default_strength
