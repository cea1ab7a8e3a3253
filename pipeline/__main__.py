"""``python -m pipeline <stage>``: what each stage of dvc.yaml runs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline import params
from pipeline.errors import UserError
from pipeline.files import root
from pipeline.paths import DATASET, RAW
from pipeline.registry import allowed
from pipeline.watchdog import stop_with_dvc


def _download(here: Path, parameters: params.Params) -> None:
    parameters.data.source.download(here / RAW)


def _prepare(here: Path, parameters: params.Params) -> None:
    from pipeline.data import prepare

    prepare(parameters.data, here / RAW, here / DATASET)


def _train(here: Path, parameters: params.Params, attack: str) -> None:
    from pipeline.train import train_row

    train_row(here, parameters, attack)


def _search(here: Path, parameters: params.Params, study: str) -> None:
    from pipeline.search.stage import search_study

    search_study(here, parameters, study)


def _analysis(here: Path, parameters: params.Params) -> None:
    from pipeline.report import analyse
    from pipeline.store import retire_rows

    retire_rows(here, parameters.grid.attacks, parameters.search.studies)
    analyse(here, parameters)


def _track(here: Path, parameters: params.Params) -> None:
    from pipeline.track import track

    track(here, parameters)


STAGES: dict[str, Callable[..., None]] = {
    "download": _download,
    "prepare": _prepare,
    "train": _train,
    "search": _search,
    "analysis": _analysis,
    "track": _track,
}
ROWS = {"train": "grid.attacks", "search": "search.studies"}


def _check_published(here: Path, parameters: params.Params) -> None:
    """Tell a missing or faulty file of published numbers before training, and not after it."""
    if parameters.analysis.published:
        from pipeline.published import read_published

        read_published(here / parameters.analysis.published)


def _list(as_page: bool) -> None:
    from pipeline import catalogue

    print(catalogue.markdown() if as_page else catalogue.text(), end="")


def _bench(here: Path, arguments: argparse.Namespace) -> None:
    from pipeline.bench import command

    if arguments.show:
        command.show(arguments.show)
    else:
        command.bench(arguments.sections, here / arguments.out, arguments.threads, arguments.tiny)


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
    bench = commands.add_parser("bench", help="measure speed and memory, see docs/performance.md")
    bench.add_argument("--sections", type=lambda names: names.split(","), default=[], help="separated by commas; all")
    bench.add_argument("--tiny", action="store_true", help="toy sizes: does everything run?")
    bench.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default 1)")
    bench.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the JSON files, one a device")
    bench.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a file, measure nothing")
    return parser


def _run(arguments: argparse.Namespace, here: Path) -> None:
    path = here / "params.yaml"
    if arguments.command == "set":
        params.override(path, arguments.changes)
        return
    if arguments.command == "list":
        _list(arguments.markdown)
        return
    if arguments.command == "bench":
        _bench(here, arguments)
        return
    parameters = params.load(path)
    _check_published(here, parameters)
    row = getattr(arguments, "row", None)
    if row is None:
        STAGES[arguments.command](here, parameters)
        return
    names = parameters.grid.attacks if arguments.command == "train" else parameters.search.studies
    if row not in names:
        raise UserError(f"{arguments.command} {row}: not in {ROWS[arguments.command]}; {allowed(row, names)}")
    STAGES[arguments.command](here, parameters, row)


def main() -> int:
    """Run the stage that the command line names; return the exit code."""
    stop_with_dvc()
    try:
        _run(_parser().parse_args(), root())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
