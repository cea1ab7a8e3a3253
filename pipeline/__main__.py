"""``python -m pipeline <stage>``: what each stage of dvc.yaml runs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.core.environment import compute_alike

compute_alike()  # before NumPy is imported

from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.core.files import root
from pipeline.core.paths import DATASET, RAW
from pipeline.runs import edit, params
from pipeline.runs.tuned import tuned
from pipeline.runs.watchdog import stop_with_dvc


def _download(here: Path, parameters: params.Params) -> None:
    parameters.data.source.download(here / RAW)


def _prepare(here: Path, parameters: params.Params) -> None:
    from pipeline.data.prepare import prepare

    prepare(parameters.data, here / RAW, here / DATASET)


def _train(here: Path, parameters: params.Params, attack: str) -> None:
    from pipeline.runs.train import train_row
    from pipeline.tracking.tracker import Tracker

    train_row(here, parameters, attack, lambda data, *row: Tracker(here, parameters, data).live_row(attack, *row))


def _search(here: Path, parameters: params.Params, study: str) -> None:
    from pipeline.search.stage import search_study

    search_study(here, parameters, study)


def _tune(here: Path, parameters: params.Params, defence: str) -> None:
    from pipeline.search.tuning import tune_defence

    tune_defence(here, parameters, defence)


def _references(here: Path, parameters: params.Params) -> None:
    from pipeline.runs.references import train_references

    train_references(here, parameters)


def _analysis(here: Path, parameters: params.Params) -> None:
    from pipeline.report import computed_on
    from pipeline.report.report import analyse
    from pipeline.runs.execution import device
    from pipeline.runs.store import retire_rows

    retire_rows(here, parameters.grid.attacks, parameters.search.studies, parameters.tuning.defences)
    analyse(here, parameters)
    computed_on.record(here, device(parameters.execution.device))


def _track(here: Path, parameters: params.Params) -> None:
    from pipeline.tracking.track import track

    track(here, parameters)


STAGES: dict[str, Callable[..., None]] = {
    "download": _download,
    "prepare": _prepare,
    "tune": _tune,
    "train": _train,
    "references": _references,
    "search": _search,
    "analysis": _analysis,
    "track": _track,
}
ROWS = {"tune": "tuning.defences", "train": "grid.attacks", "search": "search.studies"}
TUNED = ("train", "references", "search", "analysis", "track")  # stages after tune


def _check_published(here: Path, parameters: params.Params) -> None:
    """Tell a missing or faulty file of published numbers before training, and not after it."""
    if parameters.analysis.published:
        from pipeline.report.published import read_published

        read_published(here / parameters.analysis.published)


def _list(as_page: bool) -> None:
    from pipeline.runs import catalogue

    print(catalogue.markdown() if as_page else catalogue.text(), end="")


def _record(here: Path, parameters: params.Params, experiment: Path) -> None:
    from pipeline.report.replication import record
    from pipeline.runs.execution import device

    found = record(here, parameters, experiment, device(parameters.execution.device))
    print(f"{experiment}: {found} cells found")


def _compare(here: Path, to: str) -> int:
    from pipeline.report.compare import compare

    return compare(here, to)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="One stage of the pipeline; see dvc.yaml.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in STAGES:
        command = commands.add_parser(name)
        if name in ROWS:
            command.add_argument("row", help=f"a name in {ROWS[name]} of params.yaml")
    catalogue = commands.add_parser("list", help="print every rule, attack, model, ... with its parameters")
    catalogue.add_argument("--markdown", action="store_true", help="the page docs/catalogue.md")
    change = commands.add_parser("set", help="change params.yaml, keeping its comments")
    change.add_argument("changes", help="blank-separated path=value, e.g. 'training.steps=50 grid.seeds=[0,1]'")
    overlay = commands.add_parser("apply", help="merge an overlay into params.yaml, keeping the comments there")
    overlay.add_argument(
        "overlay",
        type=Path,
        help="a folder of experiments/, or a YAML file; start from the committed file (git checkout params.yaml)",
    )
    recording = commands.add_parser("record", help="add trained cells to ours.csv of a published experiment")
    recording.add_argument("experiment", type=Path, help="a folder of experiments/, applied")
    comparison = commands.add_parser("compare", help="the results as they stand beside committed or other ones")
    comparison.add_argument("--to", default="HEAD", help="a git revision, or a folder with results (default HEAD)")
    return parser


def _run(arguments: argparse.Namespace, here: Path) -> int:
    path = here / "params.yaml"
    if arguments.command == "compare":
        return _compare(here, arguments.to)
    if arguments.command == "set":
        edit.override(path, arguments.changes)
    elif arguments.command == "apply":
        edit.apply(path, arguments.overlay)
    elif arguments.command == "record":
        _record(here, params.load(path), arguments.experiment)
    elif arguments.command == "list":
        _list(arguments.markdown)
    else:
        _stage(here, params.load(path), arguments.command, getattr(arguments, "row", None))
    return 0


def _stage(here: Path, parameters: params.Params, name: str, row: str | None) -> None:
    _check_published(here, parameters)
    if name in TUNED:
        parameters = tuned(here, parameters)
    if row is None:
        STAGES[name](here, parameters)
        return
    section, field = ROWS[name].split(".")
    names = getattr(getattr(parameters, section), field)
    if row not in names:
        raise UserError(f"{name} {row}: not in {ROWS[name]}; {allowed(row, names)}")
    STAGES[name](here, parameters, row)


def main() -> int:
    """Run what the command line names; return the exit code."""
    stop_with_dvc()
    try:
        return _run(_parser().parse_args(), root())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
