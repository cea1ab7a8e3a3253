"""Learning rates that stay the same between given steps."""


def constant(t):
    return 1.0


def milestones(t, at, factor):
    rate = 1.0
    for step in at:
        if step <= t:
            rate *= factor
    return rate
