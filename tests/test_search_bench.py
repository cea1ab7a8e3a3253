"""The bench of the search on tables whose best strength is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import Training, hump
from support import ROOT, blobs, parameters, write_dataset

from benchmarks import samplers as bench
from pipeline.core.errors import UserError

PEAKS = {"median": 0.5, "krum": 30.0}
SETTINGS = {
    "search.studies": ["ipm"],
    "search.defences": list(PEAKS),
    "search.seeds": [100, 101, 102],
}
PARAMS = parameters(SETTINGS)


def damage(cell) -> float:
    """The seeds that the search does not see shift the peak a little."""
    shifted = 1.3 if cell.seed > 102 else 1.0
    return hump(cell.strength, shifted * PEAKS[cell.defence.rule.name])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    write_dataset(folder / "data" / "dataset.safetensors", blobs())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runs.evaluator.train", Training(damage))
        patch.setattr(bench, "SAMPLER_SEEDS", 4)
        bench.truth(folder, PARAMS, 101)
        bench.samplers(folder, PARAMS)
    return folder


def test_the_truth_is_the_whole_grid_on_five_seeds(root):
    table = pd.read_csv(root / bench.TRUTH)
    assert list(table.columns) == ["study", "defence", "strength", "seed", "degradation"]
    assert set(table["seed"]) == {100, 101, 102, 103, 104}
    for defence, peak in PEAKS.items():
        own = table[table["defence"] == defence]
        np.testing.assert_allclose(own["strength"].unique(), np.geomspace(0.01, 100, 101), rtol=1e-5)
        expected = [
            hump(s, (1.3 if seed > 102 else 1) * peak) for s, seed in zip(own["strength"], own["seed"], strict=True)
        ]
        np.testing.assert_allclose(own["degradation"], expected, atol=1e-12)


def test_a_finer_grid_holds_the_coarser_one(monkeypatch, tmp_path):
    write_dataset(tmp_path / "data" / "dataset.safetensors", blobs())
    training = Training(damage)
    monkeypatch.setattr("pipeline.runs.evaluator.train", training)
    bench.truth(tmp_path, PARAMS, 26)
    before = len(training.trained)
    bench.truth(tmp_path, PARAMS, 51)
    assert len(training.trained) - before == 25 * len(PEAKS) * 5


def test_regret_is_the_loss_against_the_best_strength_of_the_grid(root):
    result = json.loads((root / bench.RESULT).read_text())
    assert (result["strengths"], result["tables"], result["truth_seeds"]) == (101, 2, [100, 101, 102, 103, 104])
    found = {(row["sampler"], row["trials"]): row for row in result["samplers"]}
    assert set(found) == {(name, budget) for name in ("gp", "tpe", "cmaes", "qmc", "random") for budget in (24, 48)}
    for name in ("gp", "tpe", "cmaes", "qmc", "random"):
        short, long = found[name, 24], found[name, 48]
        assert 0 <= long["search_regret"] <= short["search_regret"]
        assert short["regret"] == pytest.approx(np.mean(list(short["tables"].values())))
        assert set(short["tables"]) == {"ipm.median", "ipm.krum"}
    assert found["gp", 48]["search_regret"] < 0.01 < found["random", 24]["search_regret"]
    # All tables have one form: a peak at the grid's own point, and two of five seeds at 1.3 times it.
    grid = np.geomspace(0.01, 100, 101)
    floors = []
    for peak in PEAKS.values():
        seen = np.array([hump(strength, peak) for strength in grid])
        true = 0.6 * seen + 0.4 * np.array([hump(strength, 1.3 * peak) for strength in grid])
        floors.append(true.max() - true[seen.argmax()])
    assert result["floor"] == pytest.approx(np.mean(floors), abs=1e-5)


def test_only_the_strength_is_searched():
    threat = {"workers": 17, "byzantine": 5, "tolerated": 5, "sampled": None}
    both = {"threat": threat, "studies.alie": {"mode": "strength", "attacks": ["alie"]}, "search.studies": ["alie"]}
    (study,) = bench._studies(parameters({**SETTINGS, **both}))
    assert all(point.parameters["sign"] == -1 for point in study.startup(5))


def test_the_page_shows_the_table_that_was_measured():
    result = json.loads((ROOT / bench.RESULT).read_text())
    assert bench.table(result) in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    measured = pd.read_csv(ROOT / bench.TRUTH)
    assert measured.groupby("study")["strength"].nunique().max() == result["strengths"]


def test_the_command_line_names_the_part_and_tells_a_mistake(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(bench, "load", lambda path: path)
    monkeypatch.setattr(bench, "root", lambda: tmp_path)

    def truth(here, params, count):
        done.append((here, params, count))

    def samplers(here, params):
        raise UserError("no table")

    bench.command_line(["truth", "21"], Path("p.yaml"), truth, samplers)
    assert done == [(tmp_path, tmp_path / "p.yaml", 21)]
    with pytest.raises(SystemExit, match="error: no table"):
        bench.command_line(["samplers"], Path("p.yaml"), truth, samplers)
    for wrong in ([], ["truth"], ["truth", "many"], ["both"]):
        with pytest.raises(SystemExit, match="2"):
            bench.command_line(wrong, Path("p.yaml"), truth, samplers)
