"""Published results are read, checked, and put beside ours."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import UserError
from pipeline.report.published import beside, read_published

HEADING = "attack,defence,partition,mean,sd,runs,measure,unit,reference\n"
ROWS = (
    "alie,krum,iid,78.88,1.5,3,last_five,percent,Table 1\n"
    "ipm,mean,iid,0.9,,,last,fraction,Table 2\n"
    "nan,inf,null,50,0,2,largest,percent,odd names\n"
)


def written(tmp_path, content):
    path = tmp_path / "published.csv"
    path.write_text(content)
    return path


def test_percents_become_fractions_and_a_missing_deviation_nan(tmp_path):
    table = read_published(written(tmp_path, HEADING + ROWS))
    assert table["published"].tolist() == pytest.approx([0.7888, 0.9, 0.5])
    assert table["published_sd"].tolist() == pytest.approx([0.015, math.nan, 0.0], nan_ok=True)
    assert table["attack"].tolist() == ["alie", "ipm", "nan"]
    assert table["defence"].tolist() == ["krum", "mean", "inf"]
    assert table["reference"].tolist() == ["Table 1", "Table 2", "odd names"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "attack,defence,mean\n",
            "the columns should be attack, defence, partition, mean, sd, runs, measure, unit, reference, not attack, ",
        ),
        (HEADING + "alie,krum,iid,x,,,last,percent,T\n", "row 1: the mean is not a number"),
        (HEADING + "alie,krum,iid,,,,last,percent,T\n", "row 1: the mean is not a number"),
        (HEADING + "alie,krum,iid,inf,,,last,percent,T\n", "row 1: the mean is not a number"),
        (HEADING + ROWS + "ipm,krum,iid,1,x,,last,percent,T\n", "row 4: the sd is not a number"),
        (HEADING + ROWS + "ipm,krum,iid,1,1,,last,%,T\n", "row 4: the unit should be one of 'percent', 'fraction'"),
        (
            HEADING + ROWS + "alie,krum,iid,1,1,,last,percent,T\n",
            "row 4: this attack, defence and partition are there already",
        ),
        (HEADING + ",krum,iid,1,1,,last,percent,T\n", "row 1: a name is empty"),
        (
            HEADING + "a,krum,iid,1,1,,best,percent,T\n",
            "row 1: the measure should be one of 'last', 'last_five', 'largest'",
        ),
        (HEADING + "a,krum,iid,1,1,0,last,percent,T\n", "row 1: the runs are not a number"),
        ("", "not a CSV file"),
        (HEADING + "a,b,c,1,1,,last,percent,T,9,9\na,b\n", "published.csv"),
    ],
)
def test_a_faulty_file_is_told(content, message, tmp_path):
    with pytest.raises(UserError, match=r"published\.csv") as error:
        read_published(written(tmp_path, content))
    assert message in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"analysis\.published = '.*absent\.csv': no such file"):
        read_published(tmp_path / "absent.csv")


def theirs(**columns):
    names = {"attack": ["ipm"], "defence": ["mean"], "partition": ["iid"]}
    numbers = {"published": [0.5], "published_sd": [0.03], "runs": [9.0], "measure": ["last"], "reference": ["T"]}
    return pd.DataFrame({**names, **numbers, **columns})


def ours(attack="ipm", accuracies=(0.3, 0.5, 0.4), curves=None, partition="iid"):
    """Three seeds of the mean; a curve is at a tenth of its accuracy but for its last evaluation."""
    rows = []
    for seed, accuracy in enumerate(accuracies):
        curve = np.array([accuracy / 10] * 6 + [accuracy]) if curves is None else np.array(curves[seed])
        rows.append((attack, "mean", partition, seed, accuracy, curve))
    return pd.DataFrame(rows, columns=["attack", "defence", "partition", "seed", "test_accuracy", "curve"])


def test_ours_stands_beside_the_published_row_of_the_same_names():
    (row,) = beside(theirs(), ours()).to_dict("records")
    assert (row["ours"], row["ours_sd"], row["seeds"]) == pytest.approx((0.4, 0.1, 3))
    assert row["difference"] == pytest.approx(-0.1)
    assert row["z"] == pytest.approx(-0.1 / math.sqrt(0.1**2 / 3 + 0.03**2 / 9))


@pytest.mark.parametrize(("measure", "expected"), [("last", 0.4), ("last_five", 0.56 / 5), ("largest", 0.4)])
def test_each_published_number_meets_ours_by_its_measure(measure, expected):
    assert beside(theirs(measure=[measure]), ours())["ours"].tolist() == pytest.approx([expected])


def test_the_largest_is_that_of_the_mean_curve_not_the_mean_of_the_largest():
    curves = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.3]]
    (row,) = beside(theirs(measure=["largest"]), ours(accuracies=(0.1, 0.1), curves=curves)).to_dict("records")
    assert row["ours"] == pytest.approx((0.9 + 0.1) / 2)
    assert row["ours_sd"] == pytest.approx(0.8 / math.sqrt(2))


def test_a_deviation_that_is_not_known_is_the_others():
    single = beside(theirs(), ours(accuracies=(0.3,))).to_dict("records")[0]
    assert math.isnan(single["ours_sd"])
    assert single["z"] == pytest.approx(-0.2 / math.sqrt(0.03**2 + 0.03**2 / 9))
    unprinted = beside(theirs(published_sd=[math.nan], runs=[math.nan]), ours()).to_dict("records")[0]
    assert unprinted["z"] == pytest.approx(-0.1 / math.sqrt(0.1**2 / 3 + 0.1**2))
    assert math.isnan(beside(theirs(published_sd=[math.nan]), ours(accuracies=(0.3,)))["z"].iloc[0])


def test_the_worst_of_several_attacks_needs_all_of_them():
    table, both = theirs(attack=["ipm / alie"]), pd.concat([ours(), ours("alie", (0.2, 0.2, 0.3))])
    assert beside(table, both)["ours"].tolist() == pytest.approx([0.7 / 3])
    assert beside(table, ours())["ours"].isna().all()


def test_another_partition_is_another_result():
    assert beside(theirs(), ours(partition="extreme"))["ours"].isna().all()


def test_neither_table_is_changed():
    published, runs = theirs(), ours()
    before = published.copy(), runs.copy()
    beside(published, runs)
    pd.testing.assert_frame_equal(published, before[0])
    pd.testing.assert_frame_equal(runs, before[1])
