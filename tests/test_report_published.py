"""What the report says of the partitions and of published numbers."""

import re
import shutil

import pandas as pd
import pytest
from analysable import GRID, outputs, results, undrawn
from support import parameters

from pipeline.core.errors import UserError
from pipeline.core.files import write_text
from pipeline.report import report

SMALL_GRID = {**GRID, "search.studies": [], "grid.defences": ["mean", "krum"]}
CSV = "tables/published.csv"
NAMED = {**SMALL_GRID, "analysis.published": CSV}
ROWS = """\
attack,defence,partition,mean,sd,runs,measure,unit,reference
ipm,krum,iid,25.5,1.5,3,last,percent,Table 1
none,mean,alpha_03,0.95,,,last,fraction,Table 2
alie,mean,alpha_03,50,1,3,last,percent,Table 1
"""
SYNTHETIC = {
    **{"name": "synthetic", "channels": 1, "height": 2, "width": 3, "classes": 10},
    **{"train": 60, "test": 20, "seed": 0, "noise": 1.0},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return results(tmp_path_factory.mktemp("trained"), parameters(SMALL_GRID))


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", undrawn)
    shutil.copytree(trained, tmp_path / "project")
    write_text(tmp_path / "project" / CSV, ROWS)
    return tmp_path / "project"


def analysed(root, changes):
    report.analyse(root, parameters(changes))
    return (root / "reports" / "report.md").read_text(encoding="utf-8")


def section(text, heading):
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_published_numbers_stand_beside_ours(root):
    told = section(analysed(root, NAMED), "Published beside ours")
    assert "| ipm | krum | iid | last | 25.5 ± 1.5 | 20.5 ± 0.7 | 2 | -5.0 | -5 | 1 |" in told
    assert "| none | mean | alpha_03 | last | 95.0 ± n/a | 90.5 ± 0.7 | 2 | -4.5 | -5.2 | 2 |" in told
    assert "| alie | mean | alpha_03 | last | 50.0 ± 1.0 | n/a ± n/a | n/a | n/a | n/a | 1 |" in told
    assert "0 of 2 lie within 2 standard errors" in told
    assert "1. Table 1\n2. Table 2" in told
    assert "synthetic" not in told


def test_published_csv_holds_fractions_and_is_linked(root):
    text = analysed(root, NAMED)
    table = pd.read_csv(root / "reports" / "published.csv")
    assert list(table["published"]) == pytest.approx([0.255, 0.95, 0.5])
    assert list(table["difference"][:2]) == pytest.approx([-0.05, -0.045])
    assert "[published.csv](published.csv)" in text


def test_without_published_numbers_nothing_of_them_appears(root):
    analysed(root, NAMED)
    assert "ublished" not in analysed(root, SMALL_GRID)
    assert not (root / "reports" / "published.csv").exists()


def test_synthetic_data_cannot_agree(root):
    told = section(analysed(root, {**NAMED, "data.source": SYNTHETIC}), "Published beside ours")
    assert "`synthetic`" in told
    assert "cannot agree" in told


@pytest.mark.parametrize("content", [None, "attack,defence\n"])
def test_a_faulty_file_is_told_before_anything_is_written(root, content):
    analysed(root, NAMED)
    before = outputs(root)
    (root / CSV).unlink() if content is None else write_text(root / CSV, content)
    with pytest.raises(UserError, match=r"published\.csv"):
        analysed(root, {**NAMED, "analysis.confidence": 0.5})
    assert outputs(root) == before


def test_missing_data_is_told_before_anything_is_written(root):
    (root / report.DATASET).unlink()
    with pytest.raises(UserError, match="run `dvc repro prepare`"):
        analysed(root, SMALL_GRID)
    assert not (root / "reports").exists()


def test_partitions_have_their_table_and_pictures(root):
    told = section(analysed(root, SMALL_GRID), "How the partitions differ")
    for row in pd.read_csv(root / "reports" / "partitions.csv").to_dict("records"):
        pair = " | ".join(f"{row[name]:.3g} ± {row[name + '_half_width']:.3g}" for name in ("G", "B"))
        assert f"| {row['partition']} | {pair} |" in told
    assert re.findall(r"\(figures/(.+)\.png\)", told) == ["labels.iid", "labels.alpha_03"]
