"""Defence against defence: pairing, Holm over all pairs, who is called best, and the worst of literature and search."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from recorded import records, row_of
from searched import DEFENCES, SETTINGS, study

from pipeline.report.analysis import cells_table, comparison, headline
from pipeline.report.pairs import pairs_table, worst_of_both, worst_of_literature
from pipeline.report.search_tables import search_tables, worst_of_each
from pipeline.report.standings import matrices, standings
from pipeline.report.worst_case import with_verdicts, worst_cases

RISING = np.linspace(0, 0.02, 10)


def runs(**accuracies) -> pd.DataFrame:
    rows = [
        {"partition": "iid", "attacks": "literature", "defence": defence, "seed": seed, "accuracy": accuracy}
        for defence, of_seeds in accuracies.items()
        for seed, accuracy in enumerate(of_seeds)
    ]
    return pd.DataFrame(rows)


def test_pairs_share_their_seeds_and_are_adjusted_together():
    pairs = pairs_table(runs(a=0.9 + RISING, b=0.8 + RISING, c=0.8 + RISING[::-1]), 0.95)
    assert pairs[["defence", "other"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    first = row_of(pairs, defence="a", other="b")
    assert (first["seeds"], first["p"], first["p_adjusted"]) == (10, 2 / 1024, pytest.approx(6 / 1024))
    assert first["difference"] == pytest.approx(0.1)
    assert first["difference_half_width"] == pytest.approx(0, abs=1e-9)
    assert pairs["apart"].to_list() == [True, True, False]


def test_only_common_seeds_count():
    pairs = pairs_table(runs(a=[0.9, 0.8, 0.7], b=[0.5, 0.6]), 0.95)
    assert pairs[["seeds", "difference"]].iloc[0].to_list() == [2, pytest.approx(0.3)]


def test_one_defence_has_no_pairs():
    assert pairs_table(runs(a=[0.9, 0.8]), 0.95).empty


def grid(**accuracies):
    """Tables of a grid with two attacks, of which ipm is the worst; accuracies of each defence under it."""
    several = {(attack, name): np.array(of) + lift for name, of in accuracies.items() for attack, lift in LIFTS.items()}
    cells = cells_table(
        records({key: several[key] for key in sorted(several, key=lambda key: list(LIFTS).index(key[0]))})
    )
    compared = with_verdicts(comparison(cells, SETTINGS), None)
    pairs = pairs_table(worst_of_literature(cells, compared), 0.95)
    return SimpleNamespace(cells=cells, compared=compared, heads=headline(compared), pairs=pairs, search=None)


LIFTS = {"none": 0.1, "ipm": 0.0, "alie": 0.05}


def test_the_best_differs_from_every_other():
    (told,) = standings(grid(krum=0.7 + RISING, mean=0.2 + RISING, median=0.5 - RISING), "iid", 0.95)
    assert (told["best"]["defence"], told["best"]["attack"]) == ("krum", "ipm")
    assert (told["rivals"], told["others"], told["too_few"]) == ([], 2, False)
    assert told["p"] == pytest.approx(6 / 1024)


def test_none_is_best_where_one_cannot_be_told_from_it():
    (told,) = standings(grid(mean=0.2 + RISING, krum=0.7 + RISING, median=0.701 + RISING[::-1]), "iid", 0.95)
    assert (told["best"]["defence"], told["rivals"]) == ("median", ["krum"])


def test_five_seeds_can_call_none_best():
    (told,) = standings(grid(mean=0.2 + RISING[:5], krum=0.9 - RISING[:5]), "iid", 0.95)
    assert (told["best"]["defence"], told["rivals"], told["too_few"]) == ("krum", ["mean"], True)


def test_a_single_defence_has_no_rival():
    (told,) = standings(grid(krum=[0.5, 0.6]), "iid", 0.95)
    assert (told["best"]["defence"], told["others"]) == ("krum", 0)


def test_matrix_is_ordered_by_mean_and_signed():
    (matrix,) = matrices(grid(mean=0.2 + RISING, krum=0.7 + RISING, median=0.5 + RISING).pairs)
    assert matrix["defences"] == ["krum", "median", "mean"]
    assert matrix["cells"]["krum"]["mean"]["difference"] == pytest.approx(0.5)
    assert matrix["cells"]["median"]["mean"]["difference"] == pytest.approx(0.3)
    assert matrix["cells"]["mean"] == {}


@pytest.fixture(scope="module")
def searched():
    studies = [study("ipm"), study("sign_flip", attacks=("sign_flip",))]
    return studies, search_tables(studies, DEFENCES, 5, SETTINGS)


def test_the_worst_of_both_is_the_lowest_accuracy_of_all_candidates(searched):
    studies, search = searched
    confirmed = search.confirmed[search.confirmed["candidate"].isin(["literature", "found"])]
    lowest = confirmed.groupby("defence")["accuracy"].min()
    assert worst_of_each(search.worst).set_index("defence")["accuracy"].to_dict() == lowest.to_dict()
    runs = worst_of_both(search, studies, "alpha_03")
    means = runs.groupby("defence")["accuracy"].agg(["mean", "count"])
    assert means["count"].eq(12).all()
    assert means["mean"].to_dict() == pytest.approx(lowest.to_dict())


def test_the_worst_case_is_whichever_hurts_more(searched):
    search = searched[1]
    found = search.worst["found"].set_index("defence")
    heads = grid(krum=[0.01, 0.02], mean=[0.9, 0.8]).heads
    table = worst_cases(heads, search, "iid").set_index("defence")
    assert table["source"].to_dict() == {"krum": "literature", "mean": "found"}
    assert table.loc["krum", "accuracy"] == pytest.approx(0.015)
    told, expected = table.loc["mean"], found.loc["mean"]
    assert (told["accuracy"], told["seeds"], told["attack"]) == (expected["accuracy"], 12, expected["attack"])
    assert set(worst_cases(heads, search, "other")["source"]) == {"literature"}
    assert set(worst_cases(heads, None, "iid")["source"]) == {"literature"}


def test_an_attack_of_the_grid_that_hurts_more_than_what_was_searched_is_told(searched):
    tables = grid(krum=[0.01, 0.02], mean=[0.9, 0.8])
    tables.search = searched[1]
    literature, found = standings(tables, "iid", 0.95)
    assert (literature["attacks"], literature["lower"]) == ("literature", [])
    assert [row["defence"] for row in found["lower"]] == ["krum"]
