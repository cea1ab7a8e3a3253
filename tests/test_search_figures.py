"""Pictures of the search: what they mark, join and leave out; nothing is clipped."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from searched import DEFENCES, SETTINGS, studies, study

from pipeline.report.figures import search_confirmed, search_course, search_trials
from pipeline.report.figures.search_trials import Axis
from pipeline.report.figures.style import FigureContext, line_styles
from pipeline.report.pictures import draw_search
from pipeline.report.search_tables import search_tables

STYLES = line_styles(DEFENCES)
CONTEXT = FigureContext(STYLES, chance=0.1, confidence=0.95, steps=6)
STRENGTH = Axis("strength", "strength of ipm", log=True)


@pytest.fixture(scope="module")
def made():
    return studies()


@pytest.fixture(scope="module")
def tables(made):
    return search_tables(made, DEFENCES, 5, SETTINGS)


def of(table, name):
    return table[table["study"] == name]


def panel(figure, defence):
    return {axes.get_title(): axes for axes in figure.axes}[defence]


def points(axes, marker):
    """The coordinates of every mark of one kind."""
    marked = [line for line in axes.lines if line.get_marker() == marker]
    return [pair for line in marked for pair in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_nothing_is_clipped_and_legends_stand_outside_the_data(made, tables):
    kinds = draw_search(tables, made, "alpha_03", CONTEXT).values()
    for name, figure in [named for drawn in kinds for named in drawn.items()]:
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01, name
        for key in figure.legends:
            assert not any(key.get_window_extent().overlaps(axes.bbox) for axes in figure.axes), name


def test_every_mode_has_its_pictures(made, tables):
    drawn = draw_search(tables, made, "alpha_03", CONTEXT)
    assert {kind: list(named) for kind, named in drawn.items()} == {
        "literature_and_found": ["literature_and_found"],
        "strength": ["strength.sign_flip", "strength.ipm"],
        "front": ["front.stealth"],
        "breakdown": ["breakdown.breakdown"],
        "transfer": ["transfer.sign_flip", "transfer.ipm"],
        "course": [f"history.{name}" for name in ("sign_flip", "ipm", "worst", "stealth", "breakdown")],
    }


def test_a_history_is_the_worst_so_far_in_the_look_of_the_defence():
    figure = search_course.history(study("ipm"), "alpha_03", STYLES)
    lines = {line.get_color(): line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"}
    trials = study("ipm").trials.query("defence == 'krum'").groupby("trial")["degradation"].mean()
    krum = lines[STYLES["krum"].color]
    assert list(krum.get_ydata()) == pytest.approx(list(100 * trials.cummax()))
    assert list(krum.get_xdata()) == list(range(1, 25))
    assert len(lines) == len(DEFENCES)
    assert "Study ipm" in figure.get_suptitle()
    assert legend(figure) == [*DEFENCES, "trial"]
    short = replace(study("ipm"), trials=study("ipm").trials.query("trial < 2"))
    assert search_course.history(short, "alpha_03", STYLES) is None


def test_strengths_mark_trials_published_and_confirmed_values(tables):
    trials, confirmed = of(tables.trials, "ipm"), of(tables.confirmed, "ipm")
    figure = search_trials.strengths(trials, confirmed, of(tables.ranges, "ipm"), STRENGTH, "title", STYLES)
    axes, own = panel(figure, "krum"), trials[trials["defence"] == "krum"]
    assert axes.get_xscale() == "log"
    vertical = [
        line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]
    assert vertical == [0.1, 0.5]
    assert sorted(points(axes, "o")) == sorted(zip(own["strength"], 100 * own["degradation"], strict=True))
    told, found = (
        confirmed.query(f"defence == 'krum' and candidate == '{name}'").iloc[0] for name in ("literature", "found")
    )
    assert points(axes, "s") == [pytest.approx((told["strength"], 100 * told["degradation"]))]
    assert points(axes, "*") == [pytest.approx((found["strength"], 100 * found["degradation"]))]
    assert {"further published value", "cannot be told from the worst"} <= set(legend(figure))
    (shaded,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    low, high = of(tables.ranges, "ipm").query("defence == 'krum'")[["low", "high"]].to_numpy()[0]
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == pytest.approx((low, high))


def test_only_trials_that_differ_in_nothing_else_are_joined(made):
    """Signs in turn: two curves. A second free number: none."""
    for others, curves in ((lambda trial: -1 + 2 * (trial % 2), ["sign -1", "sign 1"]), (lambda trial: trial / 7, [])):
        parameters = [
            json.dumps({"sign": others(row.trial), **json.loads(row.parameters)}) for row in made[1].trials.itertuples()
        ]
        again = [json.dumps({"sign": 0, **json.loads(text)}) for text in made[1].confirmation["parameters"]]
        mixed = replace(
            made[1],
            trials=made[1].trials.assign(parameters=parameters),
            confirmation=made[1].confirmation.assign(parameters=again),
            transfer=None,
        )
        tables = search_tables([mixed], DEFENCES, 5, SETTINGS)
        figure = search_trials.strengths(tables.trials, tables.confirmed, tables.ranges, STRENGTH, "title", STYLES)
        axes = panel(figure, "mean")
        assert len(axes.collections) - 2 == len(curves)  # bands, beside the error bars of two candidates
        assert [text for text in legend(figure) if text.startswith("sign")] == curves


def test_dumbbells_end_at_both_degradations_and_tell_the_verdict(tables):
    figure = search_confirmed.dumbbells(tables.at_threat, "title", CONTEXT)
    axes, rows = panel(figure, "ipm"), of(tables.at_threat, "ipm")
    assert points(axes, "o") == [
        (pytest.approx(100 * row.literature_degradation), i) for i, row in enumerate(rows.itertuples())
    ]
    assert points(axes, "D") == [
        (pytest.approx(100 * row.found_degradation), i) for i, row in enumerate(rows.itertuples())
    ]
    marks = [text.get_text() for text in axes.texts]
    assert marks == ["*" if significant else "n.s." for significant in rows["significant"]]
    assert "*" in marks
    assert "n.s." in marks
    worst = [text.get_text().split()[1] for text in panel(figure, "worst").texts]
    assert worst == of(tables.at_threat, "worst")["found_attack"].to_list()


def test_a_front_is_a_staircase_through_what_is_not_dominated(tables):
    trials, front, confirmed = (of(table, "stealth") for table in (tables.trials, tables.front, tables.confirmed))
    figure = search_trials.fronts(trials, front, confirmed, "title", STYLES)
    axes, best = panel(figure, "mean"), front[front["defence"] == "mean"]
    (steps,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(steps.get_ydata()[:-1]) == list(100 * best["degradation"])
    assert steps.get_xdata()[-1] == 100
    again = confirmed[(confirmed["defence"] == "mean") & confirmed["candidate"].str.startswith("front_")]
    assert points(axes, "D") == list(zip(100 * again["flagged"], 100 * again["degradation"], strict=True))
    assert len(points(axes, "s")) == 1


def test_a_breakdown_ends_and_is_hatched_where_it_is_not_tolerated(tables):
    figure = search_confirmed.breakdowns(tables.breakdown, "title", STYLES)
    krum, mean = panel(figure, "krum"), panel(figure, "mean")
    curve = [line for line in krum.lines if line.get_color() == STYLES["krum"].color and line.get_linestyle() == "-"]
    assert list(curve[0].get_xdata()) == list(range(8))
    assert [patch.get_x() for patch in krum.patches if isinstance(patch, Rectangle)] == [7.5]
    assert not mean.patches
    assert "not tolerated" in legend(figure)
    tolerant = tables.breakdown[tables.breakdown["defence"] != "krum"]
    assert "not tolerated" not in legend(search_confirmed.breakdowns(tolerant, "title", STYLES))


def test_transfer_shows_the_change_against_the_defences_own_strength(tables):
    transfer = of(tables.transfer, "ipm")
    axes = search_confirmed.transfer_heatmap(transfer, "title").axes[0]
    texts = {text.get_position(): text.get_text().replace("\N{MINUS SIGN}", "-") for text in axes.texts}
    row = transfer.query("from_defence == 'krum' and to_defence == 'mean'").iloc[0]
    place = DEFENCES.index("mean"), DEFENCES.index("krum")
    assert texts[place] == f"{100 * row['degradation']:.1f}\n({-100 * row['lost']:+z.1f})"
    assert "\n" not in texts[0, 0]
    image = axes.images[0].get_array()
    assert image[place[1], place[0]] == pytest.approx(100 * row["degradation"])
    assert len(axes.patches) == 2 * len(DEFENCES)


def test_one_seed_draws_without_intervals():
    single = study("ipm", defences=("mean", "krum"))
    only = replace(
        single,
        trials=single.trials[single.trials["seed"] == 100],
        confirmation=single.confirmation[single.confirmation["seed"] == 200],
        transfer=single.transfer[single.transfer["seed"] == 200],
    )
    tables = search_tables([only], DEFENCES, 5, SETTINGS)
    drawn = draw_search(tables, [only], "alpha_03", CONTEXT)
    for figure in [figure for named in drawn.values() for figure in named.values()]:
        figure.draw_without_rendering()
    assert np.isfinite(drawn["strength"]["strength.ipm"].axes[0].get_ylim()).all()
