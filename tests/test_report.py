"""The stage ``analysis``: what it reads, writes and refuses, and what its figures show."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode

import numpy as np
import pandas as pd
import pytest
from analysable import GRID, outputs, results, rewrite, undrawn
from matplotlib.patches import Rectangle
from support import ROOT, blobs, parameters, train

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.data.dataset import data_hash, write
from pipeline.report import report
from pipeline.report.figures import grid
from pipeline.report.figures.style import FigureContext, line_styles
from pipeline.report.findings import find
from pipeline.report.headline import headline
from pipeline.report.pictures import draw
from pipeline.report.written import check
from pipeline.runs import store
from pipeline.runs.plan import grid_row

PARAMS = parameters(GRID)
TABLES = (
    *("cells", "comparison", "curves", "worst_cases", "pairs", "theory", "trials", "confirmation"),
    *("literature_and_found", "transfer", "ranges"),
)
KINDS = ("heatmap", "curves", "distributions", "labels")
CONTEXT = FigureContext(line_styles(PARAMS.defences), chance=0.1, confidence=0.95, steps=6)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    root = results(tmp_path_factory.mktemp("analysed"), PARAMS)
    report.analyse(root, PARAMS)
    return root


@pytest.fixture
def root(analysed, tmp_path):
    """A copy of the analysed project that a test may change."""
    shutil.copytree(analysed, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def no_figures(monkeypatch):
    """Saves the seconds that drawing takes, where only text and tables matter."""
    monkeypatch.setattr(report, "draw", undrawn)


def test_writes_every_output(analysed):
    assert {name for name in outputs(analysed) if not name.startswith("reports/plots/")} == {
        "results/summary.json",
        *(f"results/metrics/{p}.{d}.json" for p in ("iid", "alpha_03") for d in ("mean", "krum", "median")),
        *(f"reports/{name}.csv" for name in TABLES),
        "reports/partitions.csv",
        "reports/report.md",
        "reports/report.html",
        "reports/checksums.json",
        *(f"reports/figures/{kind}.{p}.png" for kind in KINDS for p in ("iid", "alpha_03")),
        "reports/figures/literature_and_found.png",
        "reports/figures/strength.sign_flip.png",
        "reports/figures/strength.alie.png",
        "reports/figures/transfer.sign_flip.png",
        "reports/figures/transfer.alie.png",
        "reports/figures/history.sign_flip.png",
        "reports/figures/history.alie.png",
        "reports/figures/importance.alie.png",  # its sign varies, too
    }
    plots = {path.stem for path in (analysed / "reports" / "plots").iterdir()}
    assert plots == {f"{p}.{a}" for p in ("iid", "alpha_03") for a in ("none", "sign_flip", "ipm")}


def test_leaves_nothing_temporary(analysed):
    assert list(analysed.rglob(".writing-*")) == []


def test_the_same_results_give_the_same_bytes(root):
    before = outputs(root)
    report.analyse(root, PARAMS)
    assert outputs(root) == before


def test_bytes_do_not_depend_on_the_users_matplotlib_settings(root):
    import matplotlib

    before = outputs(root)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        report.analyse(root, PARAMS)
    assert outputs(root) == before


def test_summary_and_metrics_hold_the_same_numbers_without_nan(analysed):
    summary = read_json(analysed / "results" / "summary.json")
    krum = read_json(analysed / "results" / "metrics" / "alpha_03.krum.json")
    assert summary["grid"]["alpha_03"]["krum"].items() >= krum.items()
    assert (krum["worst_attack"], krum["accuracy"], krum["clean"]) == ("ipm", 0.205, 0.905)
    assert summary["search"]["alie"]["mean"]["found_strength"] == 7.0
    assert summary["pairs"]["alpha_03 literature"]["mean - krum"]["difference"] == 0
    assert "NaN" not in json.dumps(summary)


def test_search_numbers_stand_with_the_searched_partition_only(analysed):
    summary = read_json(analysed / "results" / "summary.json")["grid"]
    assert "found_range" in summary["alpha_03"]["krum"]
    assert "found_range" not in summary["iid"]["krum"]
    assert "found_range" not in summary["alpha_03"]["median"]


def test_cells_csv_is_tidy(analysed):
    cells = pd.read_csv(analysed / "reports" / "cells.csv")
    assert len(cells) == 3 * 3 * 2 * 2
    assert not cells.duplicated(["attack", "defence", "partition", "seed"]).any()


def test_plots_have_the_columns_that_dvc_reads(analysed):
    for path in (analysed / "reports" / "plots").iterdir():
        assert list(pd.read_csv(path).columns) == ["steps_done", *PARAMS.grid.defences]


def test_report_names_every_figure_and_no_other(analysed):
    text = (analysed / "reports" / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert sorted(named) == sorted(
        path.relative_to(analysed / "reports").as_posix() for path in (analysed / "reports" / "figures").rglob("*.png")
    )


def test_the_page_needs_no_other_file_and_leads_to_every_heading(analysed):
    reports = analysed / "reports"
    html, text = (
        (reports / "report.html").read_text(encoding="utf-8"),
        (reports / "report.md").read_text(encoding="utf-8"),
    )
    references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', html)
    assert {re.split("[,/]", address)[0] for address, _ in references if address[0] != "#"} == {
        "data:image",
        "data:text",
    }
    inside = {b64decode(address.partition(",")[2]) for address, _ in references}
    assert inside >= {path.read_bytes() for path in reports.glob("figures/**/*.png")}
    _, *headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    contents = re.findall(r'<li class="level\d"><a href="#([^"]+)">([^<]+)<', html)
    assert [name for _, name in contents] == headings
    assert re.findall(r'<h[23] id="([^"]+)">', html) == [anchor for anchor, _ in contents]
    assert len(dict(contents)) == len(headings)


def test_the_headline_table_of_the_terminal_is_that_of_the_report(analysed):
    rows = [" ".join(line.split()) for line in headline(analysed).splitlines()]
    half_width = 100 * 12.7062 * 0.005
    assert f"alpha_03 krum 90.5 ± {half_width:.1f} ipm literature 2 20.5 ± {half_width:.1f} 70.0 ± 0.0" in rows
    assert len(rows) == 1 + 2 * 3


def test_a_terminal_that_has_no_plus_minus_gets_the_table_all_the_same(analysed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "pipeline", "headline"]
    ran = subprocess.run(command, cwd=analysed, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "90.5 ? " in ran.stdout


@pytest.mark.parametrize(
    "name",
    [
        *("results/summary.json", "results/metrics/iid.krum.json", "reports/comparison.csv", "reports/report.html"),
        *("reports/figures/heatmap.iid.png", "reports/checksums.json"),
    ],
)
def test_what_was_edited_since_the_analysis_is_not_quoted(name, root):
    check(root)
    path = root / name
    whole = path.read_bytes()
    for content in (whole + b"\n", whole[:-1], whole.replace(b"2", b"3", 1), None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"not a whole result \(.*\); run `dvc repro -f -s analysis`"):
            headline(root)
        path.write_bytes(whole)
    check(root)


def test_without_an_analysis_a_line_says_so(tmp_path):
    with pytest.raises(UserError, match=r"reports: no such result; run `dvc repro analysis`"):
        headline(tmp_path)


def test_links_of_the_report_exist(analysed):
    text = (analysed / "reports" / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((analysed / "reports" / link).is_file() for link in links)


def test_report_states_computed_numbers(analysed):
    text = (analysed / "reports" / "report.md").read_text(encoding="utf-8")
    half_width = 100 * 12.7062 * 0.005
    median, collapsed = "20.5 (20.2 to 20.8)", "2 of 2 (16 to 100 %)"
    row = f"| ipm | literature | 2 | 20.5 ± {half_width:.1f} | {median} | {collapsed} | 70.0 ± 0.0 |"
    assert f"| alpha_03 | krum | 90.5 ± {half_width:.1f} {row}" in text
    assert "| workers | n = 7, Byzantine b = 2, tolerated f = 2 |" in text
    assert "| workers of a round |" not in text
    assert "nan" not in re.findall(r"[a-z]+", text)


def test_a_dropped_defence_partition_and_attack_leave_no_trace(root):
    dropped = {"grid.defences": ["mean", "krum"], "grid.partitions": ["iid"], "grid.attacks": ["none", "sign_flip"]}
    less = parameters({**GRID, **dropped, "search.studies": []})
    report.analyse(root, less)
    after = outputs(root)
    assert not [name for name in after if re.search(r"alpha_03|ipm|alie|strength|literature|trials|transfer", name)]
    for name, content in after.items():
        if not name.endswith(".png"):
            assert not re.search(r'\| median \||[,"]median\b|alpha_03|\bipm\b|alie|found', content.decode()), name


def test_one_seed_shows_not_available(root):
    report.analyse(root, parameters({**GRID, "grid.seeds": [1], "search.studies": []}))
    assert "| iid | krum | 91.0 ± n/a | ipm | literature | 1 | 21.0 ± n/a |" in (root / "reports/report.md").read_text()
    assert read_json(root / "results/metrics/iid.krum.json")["degradation_half_width"] is None


def test_a_grid_without_attacks(root):
    report.analyse(root, parameters({**GRID, "grid.attacks": ["none"], "search.studies": []}))
    assert read_json(root / "results/metrics/iid.krum.json")["worst_attack"] is None
    assert (
        "| iid | krum | 90.5 ± 6.4 | n/a | n/a | n/a | n/a | n/a | n/a | n/a |"
        in (root / "reports/report.md").read_text()
    )


def test_rounds_with_more_byzantine_workers_than_tolerated_are_reported(tmp_path, no_figures):
    """One seed of two has 3 in two of its six rounds, more than f = 2."""
    threat = {"workers": 9, "byzantine": 3, "tolerated": 2, "sampled": 7}
    params = parameters({**GRID, "threat": threat, "search.studies": []})
    root = results(tmp_path, params)
    for folder in (root / "results" / "train").glob("*/*.seed1"):
        rewrite(folder, steps={"byzantine_workers": np.array([0.0, 3.0, 2.0, 1.0, 3.0, 2.0])})
    report.analyse(root, params)
    told = "| workers of a round | 7, drawn anew, at least 2 of them honest; more than f Byzantine ones in 16.7 % of"
    assert told in (root / "reports" / "report.md").read_text(encoding="utf-8")


def test_a_diverged_run_is_reported(root, no_figures):
    rewrite(root / "results/train/ipm/krum.iid.seed1", final={"diverged": 1.0, "test_loss": math.nan})
    report.analyse(root, PARAMS)
    assert "| ipm | krum | iid | 1 of 2 |" in (root / "reports" / "report.md").read_text()


def test_a_missing_cell_is_a_user_error_and_keeps_the_old_outputs(root):
    before = outputs(root)
    shutil.rmtree(root / "results/train/ipm/krum.iid.seed1")
    with pytest.raises(UserError, match=r"krum\.iid\.seed1: no such result; run `dvc repro train@ipm`"):
        report.analyse(root, PARAMS)
    assert outputs(root) == before


def test_a_stale_cell_is_a_user_error(root):
    with pytest.raises(UserError, match=r"other parameters than params.yaml states; run `dvc repro train@sign_flip`"):
        report.analyse(root, parameters({**GRID, "attacks.sign_flip.strength": 3}))


def test_a_missing_study_is_a_user_error(root):
    (root / "results/search/alie/confirmation.csv").unlink()
    with pytest.raises(UserError, match=r"alie: not a whole result .*; run `dvc repro -f -s search@alie`"):
        report.analyse(root, PARAMS)


@pytest.mark.parametrize("change", [{"search.trials": 4}, {"search.partition": "iid"}, {"search.defences": ["krum"]}])
def test_a_stale_study_is_a_user_error(root, change):
    with pytest.raises(UserError, match=r"sign_flip: searched with other .* run `dvc repro search@sign_flip`"):
        report.analyse(root, parameters({**GRID, **change}))


@pytest.mark.parametrize(("name", "text"), [("study.json", "{"), ("study.json", "[]"), ("trials.csv", "a,b\n1,2\n")])
def test_a_broken_study_is_a_user_error(root, name, text):
    (root / "results/search/alie" / name).write_text(text)
    with pytest.raises(UserError, match=r"alie: not a whole result .* run `dvc repro -f -s search@alie`"):
        report.analyse(root, PARAMS)


def test_a_stray_folder_is_not_read(root, no_figures):
    report.analyse(root, PARAMS)
    before = outputs(root)
    shutil.copytree(root / "results/train/ipm/krum.iid.seed1", root / "results/train/ipm/krum.iid.seed7")
    shutil.copytree(root / "results/search/alie", root / "results/search/ipm")
    report.analyse(root, PARAMS)
    assert outputs(root) == before


def test_trained_cells_end_to_end(tmp_path):
    params = parameters(
        {
            "grid.attacks": ["none", "sign_flip"],
            "grid.defences": ["mean", "krum"],
            "grid.partitions": ["iid"],
            "grid.seeds": [0, 1],
            "search.studies": [],
        }
    )
    write(tmp_path / report.DATASET, blobs())
    accuracies = []
    for attack in params.grid.attacks:
        row, cells = store.row_folder(tmp_path, attack), grid_row(params, attack)
        row.mkdir(parents=True)
        for planned, result in zip(cells, train([cell.cell for cell in cells], blobs()), strict=True):
            store.write(row, planned, planned.cell.identity(data_hash(tmp_path / report.DATASET), {}), result)
            accuracies.append(result.final["test_accuracy"])
    report.analyse(tmp_path, params)
    cells = pd.read_csv(tmp_path / "reports" / "cells.csv")
    np.testing.assert_allclose(cells["test_accuracy"], accuracies, atol=1e-5)
    assert list(pd.read_csv(tmp_path / "reports/plots/iid.sign_flip.csv")["steps_done"]) == [0, 4, 6]


@pytest.fixture(scope="module")
def findings(analysed):
    return find(analysed, PARAMS, blobs())


@pytest.fixture(scope="module")
def tables(findings):
    return findings.tables


def test_nothing_is_clipped_and_legends_stand_outside_the_data(findings):
    kinds = draw(PARAMS, blobs(), findings).values()
    for name, figure in [named for drawn in kinds for named in drawn.items()]:
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) >= -0.01, name
        for legend in figure.legends:
            assert not any(legend.get_window_extent().overlaps(axes.bbox) for axes in figure.axes), name


def test_heatmap_frames_the_worst_attack_of_each_defence(tables):
    axes = grid.heatmap(tables.compared, "iid", CONTEXT).axes[0]
    attacks = [label.get_text() for label in axes.get_xticklabels()]
    defences = [label.get_text() for label in axes.get_yticklabels()]
    frames = {
        (defences[round(patch.get_y() + 0.42)], attacks[round(patch.get_x() + 0.46)])
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }
    assert frames == {("mean", "sign_flip"), ("krum", "ipm"), ("median", "sign_flip")}
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert bold == ["20.5▾ ± 6.4"] * 3


def test_heatmap_colours_run_from_0_to_100_percent(tables):
    image = grid.heatmap(tables.compared, "iid", CONTEXT).axes[0].images[0]
    assert image.get_clim() == (0, 100)
    np.testing.assert_allclose(image.get_array(), [[90.5, 20.5, 60.5], [90.5, 60.5, 20.5], [90.5, 20.5, 60.5]])


def test_heatmap_marks_diverged_runs(tables):
    diverged = tables.compared.assign(diverged=np.where(tables.compared["attack"] == "ipm", 1, 0))
    texts = [text.get_text() for text in grid.heatmap(diverged, "iid", CONTEXT).axes[0].texts]
    assert [text for text in texts if "‡" in text] == ["60.5‡ ± 6.4", "20.5‡▾ ± 6.4", "60.5‡ ± 6.4"]


def test_learning_curves_draw_the_mean_of_each_defence_in_its_colour(tables):
    figure = grid.learning_curves(tables.measured, "iid", CONTEXT)
    panel = {axes.get_title(): axes for axes in figure.axes}["ipm"]
    drawn = {line.get_color(): list(line.get_ydata()) for line in panel.lines}
    assert drawn[CONTEXT.styles["krum"].color] == pytest.approx([10, 20.5])
    assert drawn[CONTEXT.styles["median"].color] == pytest.approx([10, 60.5])


def test_a_defence_looks_the_same_whatever_else_is_in_the_grid_and_no_two_look_alike():
    styles = line_styles([f"defence_{i}" for i in range(20)])
    assert len({(style.color, str(style.linestyle)) for style in styles.values()}) == 20
    assert line_styles(["defence_0", "defence_1"])["defence_1"] == styles["defence_1"]
