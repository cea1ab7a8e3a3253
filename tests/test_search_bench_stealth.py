"""The bench of mode stealth on tables whose front is known."""

import json

import numpy as np
import pytest
from fabricated import Training, hump, visible
from support import ROOT, blobs, parameters

from benchmarks import stealth as bench_stealth
from pipeline.data.dataset import write
from pipeline.runs.edit import overlaid

PARAMS = parameters(
    {
        "threat": {"workers": 17, "byzantine": 5, "tolerated": 5, "sampled": None},
        "studies.both": {"mode": "stealth", "attacks": ["alie"], "sampler": "tpe"},
        "search.studies": ["both"],
        "search.defences": ["median"],
        "search.seeds": [100, 101],
    }
)


def damage(cell) -> float:
    """One sign hurts more at a larger strength, the other less at a smaller one."""
    return hump(cell.strength, 5.0) if cell.attack.sign == 1 else 0.5 * hump(cell.strength, 0.5)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The truth of a formula."""
    folder = tmp_path_factory.mktemp("root")
    write(folder / "data" / "dataset.safetensors", blobs())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runs.evaluator.train", Training(damage))
        return bench_stealth.truth(folder, PARAMS, 21)


def test_the_truth_is_the_whole_grid_of_every_variant(table):
    assert table.groupby(["variant", "seed"]).size().tolist() == [21] * 4
    np.testing.assert_allclose(table["flagged"], visible(table["strength"]))
    stronger = table["variant"] == '{"sign": 1}'
    expected = [
        hump(s, 5.0) if strong else 0.5 * hump(s, 0.5) for s, strong in zip(table["strength"], stronger, strict=True)
    ]
    np.testing.assert_allclose(table["degradation"], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([(0.5, 0.0)], 0.5),
        ([(0.5, 0.4)], 0.3),  # nothing is known that stays below 0.4
        ([(-0.5, 0.0), (0.5, 1.0)], 0.0),  # who hurts nobody stays away
        ([(0.6, 0.75), (0.4, 0.9), (0.2, 0.0)], 0.3),  # (0.4, 0.9) is beaten
        ([(0.2, 0.5), (0.6, 0.5)], 0.3),
    ],
)
def test_what_an_attacker_has_is_the_mean_over_all_limits(outcomes, expected):
    assert bench_stealth.attainable(outcomes) == pytest.approx(expected)


def test_regret_is_what_is_missing_of_the_whole_grid(table, monkeypatch):
    monkeypatch.setattr(bench_stealth, "SAMPLER_SEEDS", 3)
    result = bench_stealth.regrets(table, PARAMS)
    assert (result["strengths"], result["tables"], result["seeds"]) == (21, 1, [100, 101])
    regret = {(row["sampler"], row["trials"]): row["regret"] for row in result["samplers"]}
    assert set(regret) == {(name, budget) for name in ("tpe", "nsgaii", "random") for budget in (24, 48)}
    most = bench_stealth.attainable(list(zip(table["degradation"], table["flagged"], strict=True)))
    for name in ("tpe", "nsgaii", "random"):
        assert 0 <= regret[name, 48] <= regret[name, 24] < most


def test_a_sampler_that_tries_everything_has_no_regret(monkeypatch, table):
    everything = table[table["seed"] == 100]
    outcomes = list(zip(everything["degradation"], everything["flagged"], strict=True))
    monkeypatch.setattr(bench_stealth, "_tried", lambda *_: outcomes)
    study = bench_stealth.Study(PARAMS, "both")
    runs = list(bench_stealth._runs(study, table, "tpe"))
    assert [run["regret"] for run in runs if run["trials"] == 48] == pytest.approx([0.0] * bench_stealth.SAMPLER_SEEDS)


def test_the_page_and_the_experiment_follow_what_was_measured():
    result = json.loads((ROOT / bench_stealth.RESULT).read_text())
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    assert bench_stealth.table(result) in page
    assert (result["strengths"], result["tables"]) == (bench_stealth.STRENGTHS, 12)
    assert f"{result['strengths']} strengths" in page
    assert "Twelve tables" in page
    best = min((row for row in result["samplers"] if row["trials"] == 48), key=lambda row: row["regret"])
    assert overlaid(ROOT / "params.yaml", ROOT / bench_stealth.EXPERIMENT).search.sampler == best["sampler"]
