"""Sums, means and distances of lists of floats, each correctly rounded once."""

import math


def mean(numbers):
    return math.fsum(numbers) / len(numbers)


def middle(numbers):
    """The middle value, or half the sum of the two middle values."""
    ranked = sorted(numbers)
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


def deviation(numbers):
    centre = mean(numbers)
    return math.sqrt(math.fsum((number - centre) ** 2 for number in numbers) / (len(numbers) - 1))


def sign(number):
    return (number > 0) - (number < 0)


def columns(vectors):
    return [list(column) for column in zip(*vectors, strict=True)]


def per_coordinate(statistic, vectors):
    return [statistic(column) for column in columns(vectors)]


def mean_vector(vectors):
    return per_coordinate(mean, vectors)


def dot(x, y):
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def plus(x, factor, y):
    """x + factor y."""
    return [a + factor * b for a, b in zip(x, y, strict=True)]


def squared_distance(x, y):
    return math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def distance(x, y):
    return math.sqrt(squared_distance(x, y))


def length(x):
    return math.sqrt(dot(x, x))


def unit(x):
    return [a / length(x) for a in x] if length(x) > 0 else list(x)


def sum_of_distances(vectors, z):
    return math.fsum(distance(vector, z) for vector in vectors)
