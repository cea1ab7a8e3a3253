"""The report of a whole study: sections, opening, daggers, figures; and what is left out where there is nothing."""

import re
from dataclasses import replace

import numpy as np
import pytest
import reported
from support import blobs, parameters

from pipeline.core.files import write_json
from pipeline.report import report, summary
from pipeline.report.figures.distributions import distributions
from pipeline.report.figures.style import FigureContext, line_styles
from pipeline.report.findings import computed
from pipeline.report.pictures import draw
from pipeline.report.report_text import report as text_of
from pipeline.report.result_rows import TABLES, Side, read_both

DEFENCES = ["mean", "krum", "median", "trimmed_mean"]
PARAMS = parameters(
    {
        "threat": {"workers": 17, "byzantine": 5, "tolerated": 5, "sampled": None},
        "grid.attacks": ["none", "sign_flip", "ipm", "alie"],
        "grid.defences": DEFENCES,
        "grid.partitions": ["iid", "alpha_03"],
        "search.defences": ["mean", "krum", "median"],
        "search.studies": ["ipm"],
    }
)
DATA = blobs(sizes=(120, 30, 36), classes=3)
SECTIONS = ["Broken or only slowed", "Learning rates", "Theory beside practice", "When the attacker chooses"]


@pytest.fixture(scope="module")
def results():
    return reported.whole(PARAMS, range(8))


@pytest.fixture(scope="module")
def findings(results):
    return computed(results, PARAMS, DATA, None)


@pytest.fixture(scope="module")
def text(findings):
    pictures = {kind: list(named) for kind, named in draw(PARAMS, DATA, findings).items()}
    return text_of(PARAMS, findings, pictures)


def section(text, heading):
    return text.split(f"# {heading}\n")[1].split("\n#")[0]


def rows(text, heading):
    lines = [line for line in section(text, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_section_is_there_and_reads_well(text):
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    assert "\n\n\n" not in text
    assert "nan" not in re.findall(r"[a-z]+", text)
    assert "None" not in text.split("## How the partitions differ")[1]


@pytest.mark.parametrize("heading", ["The worst case of each defence", "Broken or only slowed", "Learning rates"])
def test_tables_have_as_many_cells_as_columns(text, heading):
    table = rows(text, heading)
    assert len(table) > 3
    assert {len(row) for row in table} == {len(table[0])}


def test_without_optional_results_their_sections_are_left_out(results):
    bare = computed(replace(results, alone=(), prolonged=(), studies=(), tuning=None), PARAMS, DATA, None)
    told = text_of(PARAMS, bare, {})
    assert [heading for heading in SECTIONS if f"## {heading}\n" in told] == ["Theory beside practice"]
    assert "†" not in told
    assert "honest alone" not in told
    assert not {"prolonged", "tuning", "tuned"} & set(report.table_files(bare.tables))
    assert "verdict" not in summary.grid_rows(bare.tables, "alpha_03")["iid.mean"]


def test_the_opening_calls_a_defence_best_only_after_a_test(text, findings):
    pairs = findings.tables.pairs
    opening = text.split("## Setting")[0]
    for partition in PARAMS.grid.partitions:
        own = pairs[(pairs["partition"] == partition) & (pairs["attacks"] == "literature")]
        (line,) = [line for line in opening.splitlines() if f"{partition}, under the worst" in line]
        heads = findings.tables.heads[findings.tables.heads["partition"] == partition]
        best = heads.loc[heads["accuracy"].idxmax(), "defence"]
        told = own[(own["defence"] == best) | (own["other"] == best)]["apart"]
        assert ("keeps the highest accuracy" in line) == bool(told.all())
        assert ("no defence can be called best" in line) == (not told.all())
        assert best in line


def test_an_unconverged_row_has_its_dagger_wherever_it_is_quoted(text, findings):
    table = {tuple(row[:2]): row for row in rows(text, "The worst case of each defence")}
    worst = findings.tables.worst
    assert worst["unconverged"].any()
    for row in worst.to_dict("records"):
        assert ("†" in table[row["partition"], row["defence"]][6]) == row["unconverged"]
    prolonged = {(row[0], row[1]): row for row in rows(text, "Broken or only slowed")}
    for row in findings.tables.prolonged.to_dict("records"):
        assert ("†" in prolonged[row["partition"], row["defence"]][4]) == (not row["converged"])
        assert prolonged[row["partition"], row["defence"]][-1] == row["verdict"]


def test_the_worst_of_literature_and_search_stands_in_the_table(findings):
    tables = findings.tables
    found = tables.search.worst["found"].set_index("defence")["accuracy"]
    heads = tables.heads.set_index(["partition", "defence"])["accuracy"]
    for row in tables.worst.to_dict("records"):
        own = [heads[row["partition"], row["defence"]]]
        if row["partition"] == "alpha_03" and row["defence"] in found:
            own.append(found[row["defence"]])
        assert row["accuracy"] == min(own)


def test_the_notes_tell_what_intervals_leave_out(text, findings):
    notes = section(text, "Notes on the statistics")
    groups = findings.tables.compared
    assert f"{groups['precise'].sum()} of {len(groups)} groups" in notes
    assert "groups have 2 to 8 seeds" in notes
    assert "The 36 test images alone leave a standard error of 8.3 points" in notes
    assert "the 95 % interval of 8 seeds holds the true mean" in notes


def test_summary_has_what_others_quote_and_metrics_are_part_of_it(findings):
    found = summary.grid_rows(findings.tables, "alpha_03")
    whole = summary.summary(found, findings.tables)
    krum = whole["grid"]["alpha_03"]["krum"]
    assert {"verdict", "tuned_learning_rate", "found_range", "found_seeds", "accuracy_median", "collapse_high"} <= set(
        krum
    )
    assert krum["alone_degradation"] > 0
    assert "found_range" not in whole["grid"]["iid"]["krum"]
    assert set(whole["pairs"]) == {"iid literature", "alpha_03 literature", "alpha_03 found"}
    assert len(whole["pairs"]["iid literature"]) == 6
    for name, row in summary.metrics(found).items():
        assert row.items() <= found[name].items()
        assert len(row) <= 16


def test_what_is_written_can_be_compared(findings, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: {})
    report.write(tmp_path / "reports", PARAMS, DATA, findings)
    rows = summary.grid_rows(findings.tables, "alpha_03")
    write_json(tmp_path / "results" / "summary.json", summary.summary(rows, findings.tables))
    side = Side("here", tmp_path)
    read, _ = read_both(side, side)
    written = {name for name in TABLES if (tmp_path / "reports" / name).exists()}
    assert {key[0] for key in read} >= written
    assert written == set(TABLES)
    assert ("pairs", "iid literature", "mean - krum") in read


CONTEXT = FigureContext(line_styles(DEFENCES), 0.1, 0.95, 6)


def test_every_seed_is_a_dot(findings):
    tables = findings.tables
    figure = distributions(tables.cells, tables.compared, "iid", 0.5, CONTEXT)
    panels = {axes.get_title(): axes for axes in figure.axes}
    own = tables.cells[(tables.cells["partition"] == "iid") & (tables.cells["attack"] == "ipm")]
    dots = np.concatenate([line.get_xdata() for line in panels["ipm"].lines if line.get_marker() == "o"])
    assert sorted(dots) == pytest.approx(sorted(100 * own["test_accuracy"]))
    ticks = [line.get_xdata()[0] for line in panels["ipm"].lines if line.get_marker() == "|"]
    medians = own.groupby("defence", sort=False)["test_accuracy"].median()
    assert ticks == pytest.approx(list(100 * medians))


def test_nothing_is_clipped_and_legends_stand_outside_the_data(findings):
    for name, figure in [named for drawn in draw(PARAMS, DATA, findings).values() for named in drawn.items()]:
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01, name
        for key in figure.legends:
            assert not any(key.get_window_extent().overlaps(axes.bbox) for axes in figure.axes), name
