"""Every figure of the report, by kind and by the name of its file."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from pipeline.data.dataset import Dataset
from pipeline.report import heterogeneity
from pipeline.report.figures import grid, search_confirmed, search_course, search_trials
from pipeline.report.figures.distributions import distributions
from pipeline.report.figures.partitions import label_map
from pipeline.report.figures.style import FigureContext, line_styles
from pipeline.report.figures.tuning import learning_rates
from pipeline.report.findings import Findings
from pipeline.report.search_results import StudyResult
from pipeline.report.search_tables import SearchTables
from pipeline.runs.params import Params

Figures = Mapping[str, Figure]  # by file name, without its ending


def draw(params: Params, data: Dataset, findings: Findings) -> dict[str, Figures]:
    """Return every figure, by kind."""
    chance = 1 / params.data.source.format.classes
    context = FigureContext(line_styles(params.defences), chance, params.analysis.confidence, params.training.steps)
    tables, partitions = findings.tables, params.grid.partitions
    drawn: dict[str, Figures] = {
        "labels": draw_labels(params, data),
        "heatmap": {f"heatmap.{name}": grid.heatmap(tables.compared, name, context) for name in partitions},
        "distributions": {
            f"distributions.{name}": distributions(
                tables.cells, tables.compared, name, params.analysis.collapse, context
            )
            for name in partitions
        },
        "tuning": {} if tables.tuning is None else {"tuning": learning_rates(tables.tuning, context)},
        "curves": {f"curves.{name}": grid.learning_curves(tables.measured, name, context) for name in partitions},
    }
    searched = draw_search(tables.search, findings.studies, params.search.partition, context) if tables.search else {}
    return {**drawn, **searched}


def draw_labels(params: Params, data: Dataset) -> dict[str, Figure]:
    """Return who holds which classes, one figure per partition of the grid."""
    counts, seed = heterogeneity.label_counts(params, data), params.grid.seeds[0]
    return {
        f"labels.{name}": label_map(held.numpy(), params.threat.honest, name, seed) for name, held in counts.items()
    }


def draw_search(
    search: SearchTables, studies: Sequence[StudyResult], partition: str, context: FigureContext
) -> dict[str, Figures]:
    """Return the figures of the searches, by kind; a kind of which there is none is empty."""

    def of_mode(mode: str, draw: Callable[..., Iterator[tuple[str, Figure]]]) -> Figures:
        chosen = [study for study in studies if study.description["mode"] == mode]
        return dict(named for study in chosen for named in draw(search, study, partition, context))

    compared = {} if search.at_threat.empty else {"literature_and_found": _compared(search, partition, context)}
    return {
        "literature_and_found": compared,
        "strength": of_mode("strength", _strengths),
        "front": of_mode("stealth", _fronts),
        "breakdown": of_mode("breakdown", _breakdowns),
        "transfer": dict(_transfers(search)),
        "course": dict(named for study in studies for named in _courses(study, partition, context)),
    }


def _compared(search: SearchTables, partition: str, context: FigureContext) -> Figure:
    title = context.title("Literature's default against found, test data, fresh seeds", partition)
    return search_confirmed.dumbbells(search.at_threat, title, context)


def _strengths(
    search: SearchTables, study: StudyResult, partition: str, context: FigureContext
) -> Iterator[tuple[str, Figure]]:
    """Yield a figure for every parameter that has a range, the strength first."""
    ((attack, space),) = study.description["spaces"].items()
    ranges = sorted((name for name, entry in space.items() if "low" in entry), key=lambda name: name != "strength")
    title = context.title(f"Study {study.name}", partition)
    trials, confirmed, found = (_of(table, study) for table in (search.trials, search.confirmed, search.ranges))
    for parameter in ranges:
        suffix = "" if parameter == ranges[0] else f".{parameter}"
        axis = search_trials.Axis(parameter, f"{parameter} of {attack}", space[parameter]["log"])
        figure = search_trials.strengths(trials, confirmed, found, axis, title, context.styles)
        yield f"strength.{study.name}{suffix}", figure


def _fronts(
    search: SearchTables, study: StudyResult, partition: str, context: FigureContext
) -> Iterator[tuple[str, Figure]]:
    title = context.title(f"Damage against detectability, study {study.name}", partition)
    trials, front, confirmed = (_of(table, study) for table in (search.trials, search.front, search.confirmed))
    yield f"front.{study.name}", search_trials.fronts(trials, front, confirmed, title, context.styles)


def _breakdowns(
    search: SearchTables, study: StudyResult, partition: str, context: FigureContext
) -> Iterator[tuple[str, Figure]]:
    title = context.title(f"Breakdown, study {study.name}, test data, fresh seeds", partition)
    figure = search_confirmed.breakdowns(_of(search.breakdown, study), title, context.styles)
    yield f"breakdown.{study.name}", figure


def _transfers(search: SearchTables) -> Iterator[tuple[str, Figure]]:
    for study, rows in search.transfer.groupby("study", sort=False):
        title = f"Mean degradation (points) under a strength found for another defence, study {study}"
        yield f"transfer.{study}", search_confirmed.transfer_heatmap(rows, title)


def _courses(study: StudyResult, partition: str, context: FigureContext) -> Iterator[tuple[str, Figure]]:
    for draw in (search_course.history, search_course.importance):
        figure = draw(study, partition, context.styles)
        if figure is not None:
            yield f"{draw.__name__}.{study.name}", figure


def _of(table: pd.DataFrame, study: StudyResult) -> pd.DataFrame:
    return table[table["study"] == study.name]
