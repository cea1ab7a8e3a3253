"""What the report says of the searches: every mode has its section, every table its numbers."""

import json
from dataclasses import replace

import pytest
from analysable import GRID, results
from searched import DEFENCES, HIGH, SETTINGS, studies, study
from support import blobs, parameters

from pipeline.report.findings import find
from pipeline.report.report_text import report
from pipeline.report.search_tables import search_tables
from pipeline.report.search_text import at_limit, compared
from pipeline.report.wording import interval, points

SMALL = parameters({**GRID, "search.studies": []})
PARAMS = parameters({**GRID, "search.studies": ["ipm"]})
PICTURES = {
    **{kind: [f"{kind}.iid"] for kind in ("labels", "heatmap", "curves")},
    **{"literature_and_found": ["literature_and_found"], "strength": ["strength.ipm"], "front": ["front.stealth"]},
    **{"breakdown": ["breakdown.b"], "transfer": ["transfer.ipm"], "course": ["history.ipm"]},
}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return find(results(tmp_path_factory.mktemp("grid"), SMALL), SMALL, blobs())


@pytest.fixture(scope="module")
def made():
    return studies()


def tabulated(*made):
    return search_tables(made, DEFENCES, 5, SETTINGS)


def told(grid, made, pictures=PICTURES):
    findings = replace(grid, studies=made, tables=replace(grid.tables, search=tabulated(*made)))
    return report(PARAMS, findings, pictures)


def rows(text, heading):
    """The cells of a section's table of which the first column is no line."""
    section = text.split(f"# {heading}\n")[1].split("\n#")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]


def test_every_mode_has_its_section_and_every_picture_its_place(grid, made):
    text = told(grid, made)
    headings = [line for line in text.split("## When the attacker chooses")[1].splitlines() if line.startswith("#")]
    assert headings[:6] == [
        "### Literature against found",
        "### Strength and degradation",
        "### Damage against detectability",
        "### Breakdown",
        "### Transfer",
        "### How the search went",
    ]
    assert [text.count(f"(figures/{name}.png)") for named in PICTURES.values() for name in named] == [1] * 9
    assert "\n\n\n" not in text


def test_a_kind_without_pictures_has_no_section(grid, made):
    assert "###" not in told(grid, made, {}).split("## When the attacker chooses")[1].split("\n## ")[0]


def test_the_worst_of_each_defence(grid, made):
    text, tables = told(grid, made), tabulated(*made)
    table = {row[0]: row for row in rows(text, "When the attacker chooses")}
    for found in tables.worst["found"].to_dict("records"):
        assert table[found["defence"]][5:] == [interval(found, "accuracy"), interval(found, "degradation")]


def test_fronts_breakdowns_and_transfers(grid, made):
    text, tables = told(grid, made), tabulated(*made)
    front = rows(text, "Damage against detectability")
    assert [row[-1] for row in front] == [
        interval(row, "confirmed_degradation")
        for row in tables.front.dropna(subset="confirmed_degradation").to_dict("records")
    ]
    krum = {row[0]: row[1:] for row in rows(text, "Breakdown")}["krum"]
    assert krum[8] == "not tolerated"
    assert krum[5] == interval(
        tables.breakdown.query("defence == 'krum' and byzantine == 5 and candidate == 'found'").iloc[0], "degradation"
    )
    own = tables.transfer.query("from_defence == to_defence")["degradation"]
    assert [row[2] for row in rows(text, "Transfer")] == [points(value) for value in own]


def test_diverged_runs_are_counted(grid, made):
    ipm = made[1]
    diverged = replace(ipm, trials=ipm.trials.assign(diverged=ipm.trials["trial"] == 0))
    count, runs, confirmed = diverged.trials["diverged"].sum(), len(ipm.trials), len(ipm.confirmation)
    expected = f"In the search, {count} of {runs} trial runs and 0 of {confirmed} confirmation runs diverged.\n"
    assert expected in told(grid, [diverged])


def test_what_the_literature_lacks_is_not_available(grid, made):
    ipm = made[1]
    found = replace(ipm, confirmation=ipm.confirmation.query("candidate != 'literature'"), transfer=None)
    text = told(grid, [found])
    assert all(row[1:4] == ["n/a"] * 3 for row in rows(text, "When the attacker chooses"))
    assert {row[-1] for row in rows(text, "Literature against found")} == {"not tested"}
    assert "Furthest" not in text


def test_a_breakdown_alone_compares_nothing(grid):
    text = told(grid, [study("b", "breakdown")], {"breakdown": ["breakdown.b"]})
    assert "literature says" not in text
    assert "when the attacker chooses" not in text


@pytest.mark.parametrize(
    ("strength", "start", "expected"),
    [(0.1, 0, True), (10.0, 0, True), (9.95, 0, True), (1.0, 0, False), (1.0, 75, True), (9.0, 74, False)],
)
def test_a_schedule_that_starts_at_once_is_at_no_limit(strength, start, expected):
    space = {"strength": {"low": 0.1, "high": 10.0}, "start": {"low": 0, "high": 75}, "sign": {"values": [-1, 1]}}
    assert at_limit(json.dumps({"strength": strength, "start": start, "sign": 1}), space) is expected


def test_the_report_tells_the_limit_of_a_range_and_the_verdict(grid, made):
    at_end = made[1].confirmation.assign(
        parameters=[
            json.dumps({"strength": HIGH}) if candidate == "found" else text
            for candidate, text in made[1].confirmation[["candidate", "parameters"]].itertuples(index=False)
        ]
    )
    tables = tabulated(replace(made[1], confirmation=at_end))
    verdicts = ["significant" if significant else "not significant" for significant in tables.at_threat["significant"]]
    assert [row["verdict"] for row in compared(tables, [made[1]])] == verdicts
    text = told(grid, [replace(made[1], confirmation=at_end)])
    assert text.count(" (limit of the space)") == len(DEFENCES)
    assert [row[-1] for row in rows(text, "Literature against found")] == verdicts
    assert "6 comparisons" in text
