"""What the report says of the searches: a section with tables, pictures, and how to read each."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.report import search_figures
from pipeline.report.figures import LineStyle, Setting, uncertain
from pipeline.report.search_results import StudyResult
from pipeline.report.search_tables import FOUND, LITERATURE, SearchTables
from pipeline.report.wording import Section, listed, markdown, percent
from pipeline.runs.params import Params

SHORT = 30  # letters that leave room for the rest of a title beside them
READ_OPTUNA = (
    "Optuna's own pictures. History: every trial in its order, and the worst so far of each defence as a line; the "
    "first trials are the literature and a grid, the sampler proposes the others. A line that still rises at its "
    "end says that more trials might find more; one that is flat after the grid says that the sampler added "
    "nothing. Importance (where several parameters vary): how much of the variance of the degradation over the "
    "trials a parameter explains; it is an estimate from few trials, and says nothing about values that were not "
    "tried."
)
NO_CANDIDATE = ["n/a", "n/a", "n/a"]  # where the literature gives no strength
MEASURED = ["accuracy (%)", "degradation (points)"]


def headline_finding(params: Params, search: SearchTables) -> list[str]:
    """Return which defence keeps most when the attacker chooses; nothing where no study compares at the threat."""
    if search.worst[FOUND].empty:
        return []
    best = max(search.worst[FOUND].to_dict("records"), key=lambda row: float(row["accuracy"]))
    told = {row["defence"]: _candidate(row) for row in search.worst[LITERATURE].to_dict("records")}
    attack, kept, _ = _candidate(best)
    default, believed, _ = told.get(best["defence"], NO_CANDIDATE)
    return [
        f"- Partition {params.search.partition}, when the attacker chooses: {best['defence']} keeps most, {kept} % "
        f"({attack}); the literature's defaults alone would have said {believed} % ({default})."
    ]


def overview(params: Params, search: SearchTables) -> list[str]:
    """Return what was searched, and the worst attack of every defence."""
    searched = params.search
    text = (
        f"On partition {searched.partition}, each study ({listed(searched.studies)}) tried up to {searched.trials} "
        f"attacks against every defence on validation data ({len(searched.seeds)} seeds). The literature's defaults "
        "and what hurt most were then measured on test data, once, with "
        f"{len(searched.confirmation_seeds)} fresh seeds; what counts as found was fixed before."
    )
    heading = "## When the attacker chooses"
    if search.worst[FOUND].empty:
        return [heading, text]
    header = ["defence", "literature says", *MEASURED, "search finds", *MEASURED]
    worst = "For each defence, the study that costs most at the literature's default, and as found:"
    return [heading, text, worst, markdown(header, _worst_rows(search))]


def _worst_rows(search: SearchTables) -> list[list[str]]:
    told = {row["defence"]: _candidate(row) for row in search.worst[LITERATURE].to_dict("records")}
    found = {row["defence"]: _candidate(row) for row in search.worst[FOUND].to_dict("records")}
    return [[defence, *told.get(defence, NO_CANDIDATE), *cells] for defence, cells in found.items()]


def _candidate(row: Mapping[Any, Any]) -> list[str]:
    """Return attack with parameters, accuracy under it, degradation."""
    accuracy = uncertain(row["accuracy"], row["accuracy_half_width"])
    degradation = uncertain(row["degradation"], row["degradation_half_width"])
    return [in_words(row["attack"], row["parameters"]), accuracy, degradation]


def in_words(attack: str, parameters: str) -> str:
    """Return an attack with its parameters, the strength first.

    Example:
        >>> in_words("alie", '{"sign": -1, "strength": 0.6942}')
        'alie 0.694, sign -1'
    """
    values = json.loads(parameters)
    strength = f" {values.pop('strength'):.3g}" if "strength" in values else ""
    return ", ".join([f"{attack}{strength}", *(f"{name} {_short(value)}" for name, value in values.items())])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Frame:
    """What all figures share.

    Attributes:
        partition: Its name.
        styles: Of the defences.
        setting: Of the figures.
    """

    partition: str
    styles: dict[str, LineStyle]
    setting: Setting

    def title(self, what: str) -> str:
        """Return the title of a figure with intervals."""
        between = "\n" if len(what) > SHORT else " "
        return f"{what}:{between}partition {self.partition}, mean and {self.setting.interval}"


def sections(search: SearchTables, studies: Sequence[StudyResult], frame: Frame) -> list[Section]:
    """Return a section for each kind of result that there is."""
    of_mode: dict[str, list[StudyResult]] = {"strength": [], "worst": [], "stealth": [], "breakdown": []}
    for study in studies:
        of_mode[study.description["mode"]].append(study)
    made = [
        _against_literature(search, studies, frame) if not search.at_threat.empty else None,
        _strengths(search, of_mode["strength"], frame) if of_mode["strength"] else None,
        _fronts(search, of_mode["stealth"], frame) if of_mode["stealth"] else None,
        _breakdowns(search, of_mode["breakdown"], frame) if of_mode["breakdown"] else None,
        _transfers(search) if not search.transfer.empty else None,
    ]
    return [section for section in made if section]


def _of(table: pd.DataFrame, study: StudyResult) -> pd.DataFrame:
    return table[table["study"] == study.name]


def _against_literature(search: SearchTables, studies: Sequence[StudyResult], frame: Frame) -> Section:
    title = frame.title("Literature's default against found, test data, fresh seeds")
    figure = search_figures.dumbbells(search.at_threat, title, frame.styles, frame.setting)
    header = ["study", "defence", "default", "degradation", "found", "degradation", "difference", "p", "verdict"]
    spaces = {study.name: study.description["spaces"] for study in studies}
    rows = [_compared_row(row, spaces) for row in search.at_threat.to_dict("records")]
    text = [_tests(search, frame.setting), markdown(header, rows), *_furthest(search)]
    return Section(
        "Literature against found", search_figures.READ_DUMBBELLS, {"literature_and_found": figure}, "\n\n".join(text)
    )


def _tests(search: SearchTables, setting: Setting) -> str:
    return (
        f"Degradation in points: mean ± half width of the {percent(setting.confidence)} % interval. The difference is "
        "found minus default, paired by seed. p is that of the one-sided paired t-test that the found attack does no "
        "more than the default, adjusted by Holm's method over all "
        f"{search.compared['p'].notna().sum()} comparisons of all studies; `significant` stands where it is at most "
        f"{1 - setting.confidence:.2g}. With few seeds the test takes it on trust that the differences are about "
        "normal; where all of them are equal the sign test takes its place."
    )


def _compared_row(row: Mapping[Any, Any], spaces: Mapping[str, Any]) -> list[str]:
    space = spaces[row["study"]][row["found_attack"]]
    return [
        row["study"],
        row["defence"],
        _told(row, LITERATURE),
        uncertain(row["literature_degradation"], row["literature_degradation_half_width"]),
        _told(row, FOUND) + (" (limit of the range)" if at_limit(row["found_parameters"], space) else ""),
        uncertain(row["found_degradation"], row["found_degradation_half_width"]),
        uncertain(row["difference"], row["difference_half_width"]),
        p_in_words(row["p_adjusted"]),
        verdict(row),
    ]


def _told(row: Mapping[Any, Any], candidate: str) -> str:
    known = isinstance(row[f"{candidate}_parameters"], str)
    return in_words(row[f"{candidate}_attack"], row[f"{candidate}_parameters"]) if known else "n/a"


def verdict(row: Mapping[Any, Any]) -> str:
    """Return in words what the test says of a row of ``literature_and_found``."""
    if not math.isfinite(row["p_adjusted"]):
        return "not tested"
    if row["literature_attack"] == row["found_attack"] and row["literature_parameters"] == row["found_parameters"]:
        return "the default itself"
    return "significant" if row["significant"] else "not significant"


def p_in_words(p: float) -> str:
    """Return a p-value with two digits.

    Example:
        >>> p_in_words(0.034), p_in_words(0.00002), p_in_words(float("nan"))
        ('0.034', '< 0.001', 'n/a')
    """
    if not math.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def at_limit(parameters: str, space: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a parameter is within 1 % of an end of its range; zero is no end, as nothing lies beyond it."""
    ends = [(name, entry[end]) for name, entry in space.items() for end in ("low", "high") if entry.get(end)]
    values = json.loads(parameters)
    return any(math.isclose(values[name], end, rel_tol=0.01) for name, end in ends)


def _furthest(search: SearchTables) -> list[str]:
    """Say which published default is furthest from the worst: in one row, and over the defences."""
    known = search.at_threat.dropna(subset="difference")
    if known.empty:
        return []
    row = max(known.to_dict("records"), key=lambda row: float(row["difference"]))
    default = f"{_told(row, LITERATURE)} against {row['defence']}"
    difference = f"{uncertain(row['difference'], row['difference_half_width'])} points ({verdict(row)})"
    return [f"Furthest from the worst is the default {default}: {difference}.{_furthest_study(known)}"]


def _furthest_study(known: pd.DataFrame) -> str:
    """Say in which of several studies the default is furthest from the worst."""
    means = known.groupby("study", sort=False)["difference"].mean()
    if len(means) == 1:
        return ""
    return f" In the mean over the defences it is that of study {means.idxmax()}, by {100 * means.max():.1f} points."


def _strengths(search: SearchTables, studies: Sequence[StudyResult], frame: Frame) -> Section:
    figures = {}
    for study in studies:
        ((attack, space),) = study.description["spaces"].items()
        ranges = sorted((name for name, entry in space.items() if "low" in entry), key=lambda name: name != "strength")
        for parameter in ranges:
            name = f"strength.{study.name}" + ("" if parameter == ranges[0] else f".{parameter}")
            title = frame.title(f"Study {study.name}")
            trials, confirmed = _of(search.trials, study), _of(search.confirmed, study)
            axis = search_figures.Axis(parameter, f"{parameter} of {attack}", space[parameter]["log"])
            figures[name] = search_figures.strengths(trials, confirmed, axis, title, frame.styles)
    return Section("Strength and degradation", search_figures.READ_STRENGTHS, figures)


def _fronts(search: SearchTables, studies: Sequence[StudyResult], frame: Frame) -> Section:
    figures = {}
    for study in studies:
        title = frame.title(f"Damage against detectability, study {study.name}")
        trials, front, confirmed = (_of(table, study) for table in (search.trials, search.front, search.confirmed))
        figures[f"front.{study.name}"] = search_figures.fronts(trials, front, confirmed, title, frame.styles)
    header = ["study", "defence", "attack", "flagged (%)", "degradation", "flagged (%), test", "degradation, test"]
    rerun = search.front.dropna(subset="confirmed_degradation")
    table = markdown(header, [_front_row(row) for row in rerun.to_dict("records")])
    return Section("Damage against detectability", search_figures.READ_FRONTS, figures, table)


def _front_row(row: Mapping[Any, Any]) -> list[str]:
    return [
        row["study"],
        row["defence"],
        in_words(row["attack"], row["parameters"]),
        percent(row["flagged"]),
        uncertain(row["degradation"], row["degradation_half_width"]),
        uncertain(row["confirmed_flagged"], row["confirmed_flagged_half_width"]),
        uncertain(row["confirmed_degradation"], row["confirmed_degradation_half_width"]),
    ]


def _breakdowns(search: SearchTables, studies: Sequence[StudyResult], frame: Frame) -> Section:
    figures, tables = {}, []
    for study in studies:
        title = frame.title(f"Breakdown, study {study.name}, test data, fresh seeds")
        curves = _of(search.breakdown, study)
        figures[f"breakdown.{study.name}"] = search_figures.breakdowns(curves, title, frame.styles)
        tables.append(f"Study {study.name}, degradation (points) under what was found at each b = f:")
        tables.append(_breakdown_table(curves))
    return Section("Breakdown", search_figures.READ_BREAKDOWN, figures, "\n\n".join(tables))


def _breakdown_table(curves: pd.DataFrame) -> str:
    found = curves[curves["candidate"] == FOUND]
    cells = {
        (row["defence"], row["byzantine"]): uncertain(row["degradation"], row["degradation_half_width"])
        for row in found.to_dict("records")
    }
    every = sorted(found["byzantine"].unique())
    rows = [[d, *(cells.get((d, b), "not tolerated") for b in every)] for d in found["defence"].unique()]
    return markdown(["defence", *map(str, every)], rows)


def _transfers(search: SearchTables) -> Section:
    figures = {
        f"transfer.{study}": search_figures.transfer_heatmap(
            rows, f"Mean degradation (points) under a strength found for another defence, study {study}"
        )
        for study, rows in search.transfer.groupby("study", sort=False)
    }
    header = ["study", "found for", "degradation of its own", "of the others, mean", "lost there, mean"]
    groups = search.transfer.groupby(["study", "from_defence"], sort=False)
    rows = [[str(study), str(defence), *_moved(str(defence), table)] for (study, defence), table in groups]
    text = "Degradation in points, means over the fresh seeds:\n\n" + markdown(header, rows)
    return Section("Transfer", search_figures.READ_TRANSFER, figures, text)


def _moved(source: str, table: pd.DataFrame) -> list[str]:
    """Return what a strength does to its own defence, and in the mean over the others, and what they are spared."""
    own, others = table[table["to_defence"] == source], table[table["to_defence"] != source]
    means = [own["degradation"].mean(), others["degradation"].mean(), others["lost"].mean()]
    return [f"{100 * mean:.1f}" if math.isfinite(mean) else "n/a" for mean in means]
