"""Published results are read, checked, and put beside ours."""

import math

import pandas as pd
import pytest

from pipeline.core.errors import UserError
from pipeline.report.published import beside, read_published

HEADING = "attack,defence,partition,mean,sd,unit,reference\n"
ROWS = (
    "alie,krum,iid,78.88,1.5,percent,Table 1\nipm,mean,iid,0.9,,fraction,Table 2\nnan,inf,null,50,0,percent,odd names\n"
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
            "the columns should be attack, defence, partition, mean, sd, unit, reference, not attack, ",
        ),
        (HEADING + "alie,krum,iid,x,,percent,T\n", "row 1: the mean is not a number"),
        (HEADING + "alie,krum,iid,,,percent,T\n", "row 1: the mean is not a number"),
        (HEADING + "alie,krum,iid,inf,,percent,T\n", "row 1: the mean is not a number"),
        (HEADING + ROWS + "ipm,krum,iid,1,x,percent,T\n", "row 4: the sd is not a number"),
        (HEADING + ROWS + "ipm,krum,iid,1,1,%,T\n", "row 4: the unit should be one of 'percent', 'fraction'"),
        (
            HEADING + ROWS + "alie,krum,iid,1,1,percent,T\n",
            "row 4: this attack, defence and partition are there already",
        ),
        (HEADING + ",krum,iid,1,1,percent,T\n", "row 1: a name is empty"),
        ("", "not a CSV file"),
        (HEADING + "a,b,c,1,1,percent,T,9,9\na,b\n", "published.csv"),
    ],
)
def test_a_faulty_file_is_told(content, message, tmp_path):
    with pytest.raises(UserError, match=r"published\.csv") as error:
        read_published(written(tmp_path, content))
    assert message in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"analysis\.published = '.*absent\.csv': no such file"):
        read_published(tmp_path / "absent.csv")


def ours(**columns):
    names = {"attack": ["ipm", "alie", "alie"], "defence": ["mean", "krum", "mean"], "partition": ["iid"] * 3}
    numbers = {"accuracy": [0.95, 0.5, 0.1], "accuracy_half_width": [0.01, 0.02, 0.03], "seeds": [5, 6, 7]}
    return pd.DataFrame({**names, **numbers, "unconverged": [False, True, False], **columns})


def test_ours_stands_beside_the_published_row_of_the_same_names(tmp_path):
    table = beside(read_published(written(tmp_path, HEADING + ROWS)), ours())
    assert table["attack"].tolist() == ["alie", "ipm", "nan"]
    assert table["ours"].tolist() == pytest.approx([0.5, 0.95, math.nan], nan_ok=True)
    assert table["ours_half_width"].tolist() == pytest.approx([0.02, 0.01, math.nan], nan_ok=True)
    assert table["difference"].tolist() == pytest.approx([-0.2888, 0.05, math.nan], nan_ok=True)
    assert table["unconverged"].tolist()[:2] == [True, False]
    ours_columns = ["ours", "ours_half_width", "seeds", "unconverged"]
    columns = ["published", "published_sd", *ours_columns, "difference", "reference"]
    assert table.columns.tolist() == ["attack", "defence", "partition", *columns]


def test_another_partition_is_another_result(tmp_path):
    table = beside(read_published(written(tmp_path, HEADING + ROWS)), ours(partition=["extreme"] * 3))
    assert table["ours"].isna().all()


def test_neither_table_is_changed(tmp_path):
    published, compared = read_published(written(tmp_path, HEADING + ROWS)), ours()
    before = published.copy(), compared.copy()
    beside(published, compared)
    pd.testing.assert_frame_equal(published, before[0])
    pd.testing.assert_frame_equal(compared, before[1])
