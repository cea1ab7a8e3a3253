"""How the partitions of the grid differ: who holds which classes, and how far apart the honest gradients are."""

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.data.partitions import Shares
from pipeline.data.partitions.base import label_histogram
from pipeline.report.intervals import over_seeds
from pipeline.runs.params import Params
from pipeline.simulator.metrics import dissimilarity, local_gradients
from pipeline.simulator.precision import backend
from pipeline.simulator.program import DTYPES


def label_counts(params: Params, dataset: Dataset) -> dict[str, Tensor]:
    """Return, for each partition of the grid, how many samples of each class every worker holds, ``[n, classes]``.

    The shares are those of the grid's first seed; honest workers come first.
    """
    seed, train = params.grid.seeds[0], dataset.train
    return {
        name: label_histogram(train.labels, _shares(params, train.labels, name, seed), dataset.classes)
        for name in params.grid.partitions
    }


def partitions_table(params: Params, dataset: Dataset, device: torch.device) -> pd.DataFrame:
    """Return one row per partition of the grid: how much the honest workers' gradients differ before training.

    G and B are the square roots of the two numbers of :class:`pipeline.simulator.metrics.Dissimilarity`, at the initial
    parameters of each seed and over all samples of a worker: their means over the seeds, with half widths.
    """
    rows = pd.DataFrame(
        [
            _measured(params, dataset, name, seed, device)
            for name in params.grid.partitions
            for seed in params.grid.seeds
        ]
    )
    confidence = params.analysis.confidence
    table: pd.DataFrame = rows.groupby("partition", sort=False).agg(
        seeds=("seed", "count"), **over_seeds("G", "G", confidence), **over_seeds("B", "B", confidence)
    )
    return table.reset_index()


def _measured(params: Params, dataset: Dataset, partition: str, seed: int, device: torch.device) -> dict[str, Any]:
    shares, h = _shares(params, dataset.train.labels, partition, seed), params.threat.honest
    network = params.model.network(dataset.shape, dataset.classes)
    dtype, gradients = DTYPES[params.training.precision], backend("auto", params.model, device)
    start, honest = network.initial(seed, dtype).to(device), Shares(shares.samples[:h], shares.sizes[:h])
    measured = dissimilarity(local_gradients(gradients, network, start, dataset.train.to(device), honest))
    return {
        "partition": partition,
        "seed": seed,
        "G": math.sqrt(measured.g_squared),
        "B": math.sqrt(measured.b_squared),
    }


def _shares(params: Params, labels: Tensor, partition: str, seed: int) -> Shares:
    threat = params.threat
    return params.partitions[partition].shares(labels, threat.workers, threat.byzantine, seed)
