"""Evaluation against a plain loop, diagnostics by hand."""

import math

import pytest
import torch
from support import blobs, cell, train

from pipeline.data.dataset import Split
from pipeline.data.partitions import PARTITIONS, Shares
from pipeline.simulator import metrics
from pipeline.simulator.gradients import loop_gradients
from pipeline.simulator.metrics import (
    EVALUATION_METRICS,
    FINAL_METRICS,
    STEP_METRICS,
    diagnostics,
    dissimilarity,
    evaluate,
    local_gradients,
)
from pipeline.simulator.models import MODELS

DATASET = blobs(sizes=(30, 23, 17))
NETWORK = MODELS.parse({"name": "mlp", "hidden": [4]}, "").network(DATASET.shape, DATASET.classes)


def replicas(count: int = 3) -> torch.Tensor:
    return torch.stack([2 * NETWORK.initial(seed) for seed in range(count)])


def by_hand(params: torch.Tensor, split: Split) -> tuple[float, float]:
    """Accuracy and loss of one replica, a sample at a time in float64."""
    right, loss = 0, 0.0
    for image, label in zip(split.inputs.double(), split.labels.tolist(), strict=True):
        logits = NETWORK.forward(params.double(), image[None])[0].tolist()
        right += logits.index(max(logits)) == label
        loss += math.log(math.fsum(math.exp(logit) for logit in logits)) - logits[label]
    return right / len(split.labels), loss / len(split.labels)


@pytest.mark.parametrize("samples_at_once", [1, 7, 23, 1000])
def test_evaluation_is_the_plain_loop_whatever_the_pieces(samples_at_once, monkeypatch):
    monkeypatch.setattr(metrics, "SAMPLES_AT_ONCE", samples_at_once)
    result = evaluate(NETWORK, replicas(), DATASET.validation)
    expected = [by_hand(params, DATASET.validation) for params in replicas()]
    assert len({accuracy for accuracy, _ in expected}) > 1
    assert result.accuracy.tolist() == pytest.approx([accuracy for accuracy, _ in expected], rel=1e-14)
    assert result.loss.tolist() == pytest.approx([loss for _, loss in expected], rel=1e-12)
    assert not result.diverged.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_replica_that_is_not_finite_is_at_chance_level_and_disturbs_no_other(bad):
    params = replicas()
    params[1, 5] = bad
    result = evaluate(NETWORK, params, DATASET.test)
    assert result.diverged.tolist() == [False, True, False]
    assert result.accuracy[1].item() == pytest.approx(1 / DATASET.classes)
    alone = evaluate(NETWORK, replicas(), DATASET.test)
    assert torch.equal(result.accuracy[[0, 2]], alone.accuracy[[0, 2]])
    assert torch.equal(result.loss[[0, 2]], alone.loss[[0, 2]])


def test_finite_parameters_with_infinite_logits_have_diverged():
    params = replicas().double()
    params[2] = 1e200
    result = evaluate(NETWORK, params, DATASET.test)
    assert result.diverged.tolist() == [False, False, True]
    assert result.accuracy[2].item() == pytest.approx(1 / DATASET.classes)


def test_logits_that_only_float32_does_not_hold_are_evaluated():
    """Two layers times 1e26 each: logits around 1e52."""
    params = replicas()
    params[1] = params[0] * 1e26
    assert not NETWORK.forward(params[1], DATASET.test.inputs).isfinite().all()
    result = evaluate(NETWORK, params, DATASET.test)
    logits = NETWORK.forward(params[1].double(), DATASET.test.inputs.double())
    assert result.diverged.tolist() == [False, False, False]
    assert result.accuracy[1].item() == (logits.argmax(dim=-1) == DATASET.test.labels).double().mean().item()
    assert result.loss[1].item() == pytest.approx(torch.nn.functional.cross_entropy(logits, DATASET.test.labels).item())
    assert math.isfinite(result.loss[1].item())


def test_diagnostics_of_an_example_by_hand():
    honest = torch.tensor([[[3.0, 0.0], [3.0, 8.0]], [[1.0, 1.0], [1.0, 1.0]]])  # means (3, 4) and (1, 1)
    losses = torch.tensor([[1.0, 2.0], [0.5, 0.5]])
    aggregate = torch.tensor([[0.0, 4.0], [1.0, 1.0]])
    measured = diagnostics(honest, losses, aggregate, torch.tensor([0.25, math.nan]), torch.tensor([0.0, math.nan]), 3)
    first, second = (dict(zip(STEP_METRICS, values.tolist(), strict=True)) for values in measured.unbind(dim=-1))
    assert first == pytest.approx(
        {
            "train_loss": 1.5,
            "honest_norm": 5.0,
            "aggregate_error": 3.0,
            "cosine": 16 / 20,
            "empirical_kappa": 9 / 16,  # both honest vectors are 4 from their mean
            "byzantine_weight": 0.25,
            "unconverged": 0.0,
            "byzantine_workers": 3,
        }
    )
    assert second["aggregate_error"] == 0
    assert second["cosine"] == pytest.approx(1)
    assert math.isnan(second["empirical_kappa"])  # no error over no spread
    assert math.isnan(second["byzantine_weight"])
    assert math.isnan(second["unconverged"])


def test_the_catalogue_names_what_a_run_measures():
    (result,) = train([cell()], blobs())
    assert list(result.steps) == list(STEP_METRICS)
    assert list(result.evaluations) == list(EVALUATION_METRICS)
    assert list(result.final) == list(FINAL_METRICS)


def test_every_metric_has_a_meaning_a_unit_and_a_direction():
    for metric in {**STEP_METRICS, **FINAL_METRICS}.values():
        assert metric.meaning
        assert metric.unit in ("nats", "fraction", "1", "0 or 1")
        assert metric.better == {"fraction": "higher", "nats": "lower", "0 or 1": "lower"}.get(
            metric.unit, metric.better
        )


def test_dissimilarity_by_hand():
    """Around (1, 0) the gradients (1, 2), (1, -1), (1, -1) spread by (4 + 1 + 1) / 3."""
    measured = dissimilarity(torch.tensor([[3.0, 2.0], [3.0, -1.0], [3.0, -1.0]]))
    assert measured == pytest.approx((2.0, 2.0 / 9.0))
    assert dissimilarity(torch.ones(4, 3)) == (0.0, 0.0)
    assert dissimilarity(torch.tensor([[1.0], [-1.0]])) == (1.0, math.inf)


def test_local_gradients_are_those_of_all_samples_of_a_worker(monkeypatch):
    """Against the mean of the gradients of single samples; in pieces of 4, and without the padding."""
    monkeypatch.setattr(metrics, "SAMPLES_AT_ONCE", 4)
    split = DATASET.train
    shares = Shares(torch.tensor([list(range(9)), [20, 11, *[0] * 7]]), torch.tensor([9, 2]))
    params = NETWORK.initial(0)
    expected = []
    for samples in ([*range(9)], [20, 11]):
        single = [
            torch.func.grad(
                lambda p, i=i: torch.nn.functional.cross_entropy(
                    NETWORK.forward(p, split.inputs[i : i + 1]), split.labels[i : i + 1]
                )
            )(params)
            for i in samples
        ]
        expected.append(torch.stack(single).mean(dim=0))
    torch.testing.assert_close(local_gradients(loop_gradients, NETWORK, params, split, shares), torch.stack(expected))


def test_sorted_labels_are_measured_as_more_heterogeneous_than_mixed_ones():
    split = DATASET.train
    measured = []
    for name in ("iid", "extreme"):
        shares = PARTITIONS[name]().shares(split.labels, 3, 0, seed=0)
        measured.append(dissimilarity(local_gradients(loop_gradients, NETWORK, NETWORK.initial(0), split, shares)))
    assert measured[1].g_squared > 2 * measured[0].g_squared
