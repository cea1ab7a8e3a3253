"""The bench of the search on tables whose best strength is known."""

import json

import numpy as np
import pytest
from fabricated import Training, hump
from support import ROOT, blobs, parameters

from benchmarks import samplers as bench
from pipeline.data.dataset import write
from pipeline.runs.params import load

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
def table(tmp_path_factory):
    """The truth of a formula."""
    folder = tmp_path_factory.mktemp("root")
    write(folder / "data" / "dataset.safetensors", blobs())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runs.evaluator.train", Training(damage))
        return bench.truth(folder, PARAMS, 101)


def test_the_truth_is_the_whole_grid_on_five_seeds(table):
    assert list(table.columns) == ["study", "defence", "strength", "seed", "degradation"]
    assert set(table["seed"]) == {100, 101, 102, 103, 104}
    for defence, peak in PEAKS.items():
        own = table[table["defence"] == defence]
        np.testing.assert_allclose(own["strength"].unique(), np.geomspace(0.01, 100, 101), rtol=1e-5)
        expected = [
            hump(s, (1.3 if seed > 102 else 1) * peak) for s, seed in zip(own["strength"], own["seed"], strict=True)
        ]
        np.testing.assert_allclose(own["degradation"], expected, atol=1e-12)


def test_what_was_trained_before_is_not_trained_again(monkeypatch, tmp_path):
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    training = Training(damage)
    monkeypatch.setattr("pipeline.runs.evaluator.train", training)
    first = bench.truth(tmp_path, PARAMS, 26)
    before = len(training.trained)
    assert bench.truth(tmp_path, PARAMS, 26).equals(first)
    assert len(training.trained) == before
    finer = bench.truth(tmp_path, PARAMS, 51)
    assert set(first["strength"]) < set(finer["strength"])
    assert len(training.trained) - before == 25 * len(PEAKS) * 5


def test_regret_is_the_loss_against_the_best_strength_of_the_grid(table, monkeypatch):
    monkeypatch.setattr(bench, "SAMPLER_SEEDS", 4)
    result = bench.regrets(table, PARAMS)
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
    (study,) = bench.studies(parameters({**SETTINGS, **both}))
    assert all(point.parameters["sign"] == -1 for point in study.startup(5))


def test_the_page_shows_what_was_measured():
    result = json.loads((ROOT / bench.RESULT).read_text())
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    assert bench.table(result) in page
    assert result["strengths"] == bench.STRENGTHS
    runs = result["tables"] * result["strengths"] * len(result["truth_seeds"])
    for shown in (f"{result['tables']} tables", f"{result['strengths']} strengths", f"{runs:,} runs"):
        assert shown in page
    assert f"a regret of {100 * result['floor']:.2f} points" in page


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A project's folder that holds params.yaml and nothing else, as the working folder."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "tests" / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.mark.parametrize(("arguments", "count"), [([], bench.STRENGTHS), (["--strengths", "5"], 5)])
def test_the_command_trains_the_grid_and_writes_the_summary(arguments, count, here, table, monkeypatch):
    grids = []

    def truth(folder, params, strengths):
        assert (folder, params) == (here.resolve(), load(ROOT / "tests" / "params.yaml"))
        grids.append(strengths)
        return table

    monkeypatch.setattr(bench, "truth", truth)
    monkeypatch.setattr(bench, "regrets", lambda rows, params: {"rows": len(rows)})
    bench.command_line(arguments, bench.STRENGTHS, bench.measure_samplers)
    assert grids == [count]
    assert json.loads((here / bench.RESULT).read_text()) == {"rows": len(table)}


def test_the_command_tells_a_mistake(here):
    with pytest.raises(SystemExit, match=r"error: .*dataset\.safetensors"):
        bench.command_line(["--strengths", "3"], bench.STRENGTHS, bench.measure_samplers)
    for wrong in (["many"], ["--strengths", "many"]):
        with pytest.raises(SystemExit, match="2"):
            bench.command_line(wrong, bench.STRENGTHS, bench.measure_samplers)
    assert not (here / bench.RESULT).exists()
