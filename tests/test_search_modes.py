"""The modes worst, stealth and breakdown on damage functions with a known answer."""

import numpy as np
import pytest
from fabricated import Training, hump, visible
from test_search import described, files, searched

FAMILIES = {"sign_flip": 0.2, "ipm": 0.4, "alie": 0.7}  # the largest damage of each


def by_family(cell) -> float:
    """ALIE with sign 1 at a strength of 3 hurts most."""
    right = getattr(cell.attack, "sign", 1) == 1
    return FAMILIES[cell.attack.name] * hump(cell.strength, 3.0) / 0.7 * (1.0 if right else 0.5)


WORST = {
    "studies.worst": {"mode": "worst", "attacks": list(FAMILIES)},
    "search.studies": ["worst"],
    "threat": {"workers": 17, "byzantine": 5, "tolerated": 5, "sampled": None},
    "search.trials": 48,
}


@pytest.fixture(scope="module")
def worst(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return searched(tmp_path_factory.mktemp("root"), patch, Training(by_family), "worst", **WORST)


def test_the_worst_family_is_found_with_its_sign_and_strength(worst):
    found = worst["confirmation"][worst["confirmation"]["candidate"] == "found"]
    assert set(found["attack"]) == {"alie"}
    assert found["parameters"].str.contains('"sign": 1,').all()
    assert (np.log10(found["strength"] / 3).abs() < 0.2).all()


def test_the_literature_of_all_families_comes_first_then_a_grid_over_each(worst):
    trials = worst["trials"]
    first = trials[(trials["seed"] == 100) & (trials["defence"] == "krum")]
    assert first["attack"].tolist()[:6] == ["sign_flip", *["ipm"] * 2, *["alie"] * 3]
    assert first["origin"].tolist()[:6] == ["literature"] * 6
    assert first["attack"].tolist()[6:9] == ["sign_flip", "ipm", "alie"]
    grid = first[first["origin"] == "grid"]
    assert grid.groupby("attack").size().to_dict() == {"sign_flip": 6, "ipm": 6, "alie": 5}  # 1 is published
    alie = grid[grid["attack"] == "alie"]
    assert alie["parameters"].str.contains('"sign": 1,').tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(alie["strength"], np.geomspace(0.05, 20, 5), rtol=5e-4)


def test_the_literature_of_every_family_is_confirmed_and_the_worst_of_it_on_validation(worst):
    trials, confirmed = worst["trials"], worst["confirmation"]
    for defence in ("median", "krum"):
        own = confirmed[(confirmed["defence"] == defence) & (confirmed["seed"] == 200)].set_index("candidate")
        assert list(own.index)[:4] == ["literature", "literature_sign_flip", "literature_ipm", "literature_alie"]
        validation = trials[trials["defence"] == defence].groupby("trial")["degradation"].mean()
        defaults = {family: validation[own.loc[f"literature_{family}", "trial"]] for family in FAMILIES}
        assert own.loc["literature", "attack"] == max(defaults, key=defaults.get)


STEALTH = {
    "studies.hidden": {"mode": "stealth", "attacks": ["ipm"], "sampler": "nsgaii"},
    "search.studies": ["hidden"],
}


def test_the_front_holds_what_nothing_else_beats_in_both_objectives(monkeypatch, tmp_path):
    tables = searched(tmp_path, monkeypatch, Training(lambda cell: hump(cell.strength, 5.0)), "hidden", **STEALTH)
    trials, confirmed = tables["trials"], tables["confirmation"]
    np.testing.assert_allclose(trials["flagged"], visible(trials["strength"]))
    for defence in ("median", "krum"):
        means = trials[trials["defence"] == defence].groupby("trial")[["degradation", "flagged"]].mean()
        beaten = [
            ((means >= [row.degradation, -1]) & (means <= [2, row.flagged])).all(axis=1).sum()
            - ((means == [row.degradation, row.flagged]).all(axis=1)).sum()
            for row in means.itertuples()
        ]
        own = confirmed[(confirmed["defence"] == defence) & (confirmed["seed"] == 200)]
        front = own[own["candidate"].str.startswith("front")]
        assert sorted(front["trial"]) == sorted(means.index[np.array(beaten) == 0])
        assert front["candidate"].tolist() == [f"front_{rank}" for rank in range(1, len(front) + 1)]
        assert front["degradation"].is_monotonic_decreasing
        assert front["flagged"].is_monotonic_decreasing
        assert (front["strength"] <= 5.1).all()  # beyond the peak there is less damage and more to see
        assert own["candidate"].iloc[0] == "literature"
    assert "transfer" not in tables


def test_a_stealth_search_with_tpe_runs_and_repeats(monkeypatch, tmp_path):
    changes = {**STEALTH, "studies.hidden": {**STEALTH["studies.hidden"], "sampler": "tpe"}}
    searched(tmp_path / "one", monkeypatch, Training(lambda cell: hump(cell.strength, 5.0)), "hidden", **changes)
    searched(tmp_path / "two", monkeypatch, Training(lambda cell: hump(cell.strength, 5.0)), "hidden", **changes)
    assert files(tmp_path / "one", "hidden") == files(tmp_path / "two", "hidden")


BREAKDOWN = {
    "studies.curve": {"mode": "breakdown", "attacks": ["ipm"]},
    "search.studies": ["curve"],
    "threat": {"workers": 9, "byzantine": 2, "tolerated": 2, "sampled": None},
    "search.trials": 16,
}


def moving_peak(cell) -> float:
    """The more Byzantine workers, the weaker the worst attack, and the more it hurts."""
    b = cell.threat.byzantine
    return b / 5 * hump(cell.strength, 10.0 / max(b, 1) ** 2)


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        training = Training(moving_peak)
        return root, training, searched(root, patch, training, "curve", **BREAKDOWN)


def test_the_strength_is_searched_anew_for_every_number_of_byzantine_workers(curve):
    _, _, tables = curve
    found = tables["confirmation"][tables["confirmation"]["candidate"] == "found"]
    for b, own in found[found["byzantine"] > 0].groupby("byzantine"):
        assert (np.log10(own["strength"] * b**2 / 10).abs() < 0.4).all()
    damage = found[found["defence"] == "median"].groupby("byzantine")["degradation"].mean()
    assert list(damage.index) == [0, 1, 2, 3, 4]
    assert damage.is_monotonic_increasing
    assert damage[0] == 0


def test_the_defence_is_told_the_true_number_and_what_it_cannot_stand_is_left_out_with_the_reason(curve):
    root, training, tables = curve
    assert all(cell.threat.tolerated == cell.threat.byzantine for cell in training.trained)
    krum = tables["confirmation"][tables["confirmation"]["defence"] == "krum"]
    assert sorted(set(krum["byzantine"])) == [0, 1, 2, 3]
    (absent,) = described(root, "curve")["absent"]
    assert (absent["defence"], absent["byzantine"]) == ("krum", 4)
    assert absent["reason"] == "krum needs n >= 2f + 3, got n = 9, f = 4"


def test_without_byzantine_workers_one_trial_is_enough(curve):
    _, _, tables = curve
    counts = tables["trials"].groupby(["defence", "byzantine"])["trial"].nunique()
    assert counts["median"].tolist() == [1, 16, 16, 16, 16]
    without = tables["confirmation"][tables["confirmation"]["byzantine"] == 0]
    assert sorted(set(without["candidate"])) == ["found", "literature"]


@pytest.mark.parametrize("study", [WORST, STEALTH, BREAKDOWN], ids=["worst", "stealth", "breakdown"])
def test_every_mode_goes_on_to_the_same_bytes_after_a_kill(study, monkeypatch, tmp_path):
    changes = {**study, "search.trials": 16, "search.defences": ["median"]}
    (name,) = changes["search.studies"]

    def damage(cell):
        return hump(cell.strength, 2.0)

    searched(tmp_path / "whole", monkeypatch, Training(damage), name, **changes)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed", monkeypatch, Training(damage, fails_after=30), name, **changes)
    searched(tmp_path / "killed", monkeypatch, Training(damage), name, **changes)
    assert files(tmp_path / "killed", name) == files(tmp_path / "whole", name)
