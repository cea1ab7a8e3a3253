"""How far an aggregate can be led away from the mean of the vectors that are not Byzantine."""

from itertools import combinations

import torch


def empirical_kappa(vectors, f, aggregates, rounding=1e-12):
    """Per replica, the largest |F - mean_S|^2 / mean_{i in S} |x_i - mean_S|^2 over all subsets S of n - f vectors.

    Batched, as it runs over thousands of inputs: ``vectors [B, n, d]``, ``aggregates [B, d]`` -> ``[B]``.
    """
    n = vectors.shape[-2]
    subsets = torch.tensor(list(combinations(range(n), n - f)))
    members = vectors[:, subsets]
    centres = members.mean(dim=-2)
    variance = (members - centres[:, :, None]).square().sum(dim=-1).mean(dim=-1)
    slack = rounding * vectors.square().sum(dim=-1).amax(dim=-1, keepdim=True)
    error = ((aggregates[:, None] - centres).square().sum(dim=-1) - slack).clamp_min(0)
    return (error / variance).nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=-1)


def hardest_kappa(aggregate, n, f, rounding=1e-12):
    """The largest empirical kappa of ``aggregate([B, n, d]) -> [B, d]`` that a seeded search finds.

    It starts at n - f vectors at 0 and f at 1 (where every robust rule must return 0, and kappa is f / (n - 2f)), at
    clusters, at far outliers and at random vectors, and then perturbs the worst inputs found.
    """
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, n, 2, generator=stream, dtype=torch.float64)
    inputs[100:200] = torch.randint(-1, 2, (100, n, 2), generator=stream).double()
    inputs[200:300, :f] *= 10.0 ** torch.randint(0, 4, (100, 1, 1), generator=stream)
    inputs[300:, n // 2 :] += 3.0
    inputs[0], inputs[0, :f] = 0.0, 1.0
    worst = torch.tensor(0.0)
    for size in (1.0, 0.3, 0.1, 0.03, 0.01):
        found = empirical_kappa(inputs, f, aggregate(inputs), rounding)
        worst = torch.maximum(worst, found.max())
        parents = inputs[found.topk(20).indices].repeat(10, 1, 1)
        changed = torch.randn(parents.shape, generator=stream, dtype=torch.float64)
        chosen = torch.rand((len(parents), n, 1), generator=stream) < 0.3
        inputs = parents + size * changed * chosen
    return float(worst)
