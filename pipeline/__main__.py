"""``python -m pipeline <stage>``: what each stage of dvc.yaml runs."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from pipeline.core.environment import compute_alike, environment

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
TRAINING = ("tune", "train", "references", "search")


def _on_interruption(do: Callable[[int, Any], None]) -> None:
    """Have ``do`` called at Ctrl-C or SIGTERM, unless whoever started this process has had them ignored."""
    for number in INTERRUPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, do)


def _leave(number: int, _: Any) -> NoReturn:
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(128 + number)


def _interrupt(number: int, _: Any) -> NoReturn:
    """Raise what lets every block end in order; a second interruption ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _ignore(number: int, _: Any) -> None:
    """Let a process that has done all of its work end as it would; a second interruption ends it at once."""
    signal.signal(number, signal.SIG_DFL)


def _not_loaded(error: ImportError) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return f"error: {sys.executable} cannot load a package: {error}"
    return (
        f"error: {sys.executable} has no package {error.name!r}; activate the project's environment "
        "(`source .venv/bin/activate`, after `make repro`), or install the package there"
    )


if __name__ == "__main__":
    _on_interruption(_leave)  # nothing has begun
compute_alike()  # before NumPy is imported

try:
    from pipeline.runs.pool import start_ahead

    if __name__ == "__main__" and set(sys.argv[1:2]) & set(TRAINING):
        start_ahead(environment(), "pipeline.runs.execution")
    from pipeline.core.component import allowed, parse
    from pipeline.core.errors import UserError
    from pipeline.core.files import root
    from pipeline.core.paths import CACHE, DATASET, RAW
    from pipeline.runs import edit, params
    from pipeline.runs.lock import alone
    from pipeline.runs.progress import Detail, telling
    from pipeline.runs.tuned import tuned
    from pipeline.runs.watchdog import stop_with_dvc
except ImportError as error:
    sys.exit(_not_loaded(error))


def _download(here: Path, parameters: params.Params) -> None:
    parameters.data.source.download(here / RAW)


def _prepare(here: Path, parameters: params.Params) -> None:
    from pipeline.data.prepare import prepare

    prepare(parameters.data, here / RAW, here / DATASET)


def _train(here: Path, parameters: params.Params, attack: str) -> None:
    from pipeline.runs.train import Observer, train_row

    def observe(data: str, *row: Any) -> Observer:
        from pipeline.tracking.live import follow  # takes a second, while the processes start

        return follow(here, parameters, data, attack, *row)

    train_row(here, parameters, attack, observe)


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


def _track(here: Path, parameters: params.Params, stage: str | None = None) -> None:
    from pipeline.tracking.track import track

    track(here, parameters, stage)


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


# Stages whose work does not depend on each other's, in the order of their groups.
GROUPS = (("tune",), ("train", "search"), ("references",))


def _prefetch(here: Path, parameters: params.Params, address: str | None) -> None:
    """Train on a cluster what ``dvc repro`` would train: the same stages, those of a group at the same time."""
    from pipeline.runs import cluster

    wanted = {"cluster": address or parameters.execution.cluster or cluster.AUTO}
    execution = parse(params.Execution, {**parameters.execution.content(), **wanted}, "execution")
    cluster.connected(execution.cluster)
    parameters = parameters.model_copy(update={"execution": execution})
    for group in GROUPS:
        rows = [(name, row) for name in group for row in (_rows(parameters, name) if name in ROWS else [None])]
        cluster.at_once([partial(_stage, here, parameters, *row) for row in rows])
    print("prefetch: every cell is there; `dvc repro` trains none", flush=True)


def _rows(parameters: params.Params, name: str) -> Sequence[str]:
    """Return the rows of a stage as params.yaml names them."""
    section, field = ROWS[name].split(".")
    names: Sequence[str] = getattr(getattr(parameters, section), field)
    return names


def _check_published(here: Path, parameters: params.Params) -> None:
    """Tell a missing or faulty file of published numbers before training, and not after it."""
    if parameters.analysis.published:
        from pipeline.report.published import read_published

        read_published(here / parameters.analysis.published)


def _plan(here: Path, parameters: params.Params) -> None:
    from pipeline.search import forecast

    print(forecast.table(here, parameters))


def _announce(parameters: params.Params, stage: str) -> None:
    """Tell what a stage trains, or that memory cannot suffice for it, before it plans the first cell."""
    from pipeline.search import forecast

    print(forecast.announced(parameters, stage), flush=True)


def _headline(here: Path) -> None:
    from pipeline.report.headline import headline

    print(headline(here))


def _list(as_page: bool) -> None:
    from pipeline.runs import catalogue

    print(catalogue.markdown() if as_page else catalogue.text(), end="")


def _record(here: Path, parameters: params.Params, experiment: Path) -> None:
    from pipeline.report.replication import record
    from pipeline.runs.execution import device

    found = record(here, parameters, experiment, device(parameters.execution.device))
    print(f"{experiment}: {found} cells found")


def _distributed(here: Path, parameters: params.Params, wanted: argparse.Namespace) -> None:
    from pipeline.runs.distributed import run_distributed

    run_distributed(here, parameters, wanted.attack, wanted.defence, wanted.workers, wanted.byzantine)


def _compare(here: Path, to: str) -> int:
    from pipeline.report.compare import compare

    return compare(here, to)


HELP = {
    "download": "fetch the raw files of the source; download",
    "prepare": "split and normalise the data; prepare",
    "tune": "choose the learning rate of a defence, on validation data; tune krum",
    "train": "train every defence under an attack; train ipm",
    "references": "train the honest workers alone, and the worst rows for longer; references",
    "search": "search for what hurts each defence most; search alie",
    "analysis": "make tables, figures and the report of all results; analysis",
    "track": "put all results into MLflow; track",
    "prefetch": "train on a Ray cluster what `dvc repro` would train; prefetch --address 10.0.0.1:6379",
    "distributed": "train a cell as a server and n workers, each a process; distributed alie krum",
    "plan": "tell the cells, steps, memory and minutes of a whole `dvc repro`; plan",
    "headline": "print the worst case of each defence; headline",
    "list": "print every rule, attack, model, ... with its parameters; list",
    "set": "change params.yaml, keeping its comments; set 'training.steps=50 grid.seeds=[0,1]'",
    "apply": "merge an overlay into params.yaml, keeping the comments there; apply experiments/worst_digits",
    "record": "add trained cells to ours.csv of a published experiment; record experiments/byzfl_f1",
    "compare": "set the results as they stand beside committed or other ones; compare --to HEAD~1",
}


def _described(name: str) -> str:
    line, example = HELP[name].rsplit("; ", 1)
    return f"  {name:<11} {line}\n{'':14}python -m pipeline {example}"


def _add_detail(command: argparse.ArgumentParser) -> None:
    flags = command.add_mutually_exclusive_group()
    command.set_defaults(detail=Detail.NORMAL)
    for detail in (Detail.QUIET, Detail.VERBOSE):
        word = detail.name.lower()
        told = f"tell {detail.value}"
        flags.add_argument(f"-{word[0]}", f"--{word}", dest="detail", action="store_const", const=detail, help=told)


def _parser() -> argparse.ArgumentParser:
    described = "\n".join(map(_described, HELP))
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        usage="%(prog)s [-h] command ...",
        description=f"A stage of dvc.yaml, or a look at its results. Commands, with an example each:\n\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What trains (tune, train, references, search) takes -q, to tell nothing but what is wrong, and -v.\n"
        "`python -m pipeline <command> --help` says the rest; `dvc repro` runs every stage that is out of date.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", help=argparse.SUPPRESS)
    for name in STAGES:
        command = commands.add_parser(name)
        if name in TRAINING:
            _add_detail(command)
        if name in ROWS:
            command.add_argument("row", help=f"a name in {ROWS[name]} of params.yaml")
        if name == "track":
            command.add_argument("row", nargs="?", metavar="stage", help="train@<attack> or search@<study>, that alone")
    fetching = commands.add_parser("prefetch")
    fetching.add_argument("--address", help="host:port of the cluster's head (default: execution.cluster, else auto)")
    real = commands.add_parser("distributed")
    real.add_argument("attack", help="a name in attacks of params.yaml")
    real.add_argument("defence", help="a name in defences of params.yaml")
    real.add_argument("--workers", type=int, metavar="N", help="n, instead of threat.workers")
    real.add_argument("--byzantine", type=int, metavar="B", help="b, and f, instead of those of threat")
    commands.add_parser("plan")
    commands.add_parser("headline")
    catalogue = commands.add_parser("list")
    catalogue.add_argument("--markdown", action="store_true", help="the page docs/catalogue.md")
    change = commands.add_parser("set")
    change.add_argument("changes", help="blank-separated path=value, e.g. 'training.steps=50 grid.seeds=[0,1]'")
    overlay = commands.add_parser("apply")
    overlay.add_argument(
        "overlay",
        type=Path,
        help="a folder of experiments/, or a YAML file; start from the committed file (git checkout params.yaml)",
    )
    recording = commands.add_parser("record")
    recording.add_argument("experiment", type=Path, help="a folder of experiments/, applied")
    comparison = commands.add_parser("compare")
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
    elif arguments.command == "headline":
        _headline(here)
    elif arguments.command == "list":
        _list(arguments.markdown)
    else:
        _compute(arguments, here, params.load(path))
    return 0


def _compute(arguments: argparse.Namespace, here: Path, parameters: params.Params) -> None:
    if arguments.command == "plan":
        _plan(here, parameters)
    elif arguments.command == "prefetch":
        _prefetch(here, parameters, arguments.address)
    elif arguments.command == "distributed":
        _distributed(here, parameters, arguments)
    else:
        with telling(getattr(arguments, "detail", Detail.NORMAL)):
            _stage(here, parameters, arguments.command, getattr(arguments, "row", None))


def _stage(here: Path, parameters: params.Params, name: str, row: str | None) -> None:
    _check_published(here, parameters)
    if name in TUNED:
        parameters = tuned(here, parameters)
    if name in ROWS:
        names = _rows(parameters, name)
        if row not in names:
            raise UserError(f"{name} {row}: not in {ROWS[name]}; {allowed(str(row), names)}")
    of_row = () if row is None else (row,)
    if name in TRAINING:
        _announce(parameters, "@".join([name, *of_row]))
    with alone(here / CACHE / "locks" / ".".join([name, *of_row])):
        STAGES[name](here, parameters, *of_row)


def main() -> int:
    """Run what the command line names; return the exit code."""
    stop_with_dvc()
    arguments = _parser().parse_args()
    try:
        code = _run(arguments, root())
        print(end="", flush=True)
        return code
    except UserError as error:
        return _told(f"error: {error}")
    except OSError as error:
        return _told(f"error: {_cause(error)}")
    except MemoryError:
        return _told("error: the memory of this machine does not suffice")
    except ImportError as error:
        return _told(_not_loaded(error))
    except KeyboardInterrupt as error:
        resumed = arguments.command in (*STAGES, "prefetch")
        line = "interrupted; the next run goes on from here" if resumed else "interrupted"
        return _told(line, 128 + (error.args or INTERRUPTIONS)[0])


def _cause(error: OSError) -> str:
    """Return what the operating system refused, and for which file.

    Example:
        >>> _cause(PermissionError(13, "Permission denied", "params.yaml"))
        'params.yaml: Permission denied'
    """
    files = [str(file) for file in (error.filename, error.filename2) if file is not None]
    return ": ".join([*files, error.strerror or str(error)])


def _told(line: str, code: int = 1) -> int:
    print(line, file=sys.stderr, flush=True)
    try:
        print(end="", flush=True)
    except OSError:  # the disk is full, or the reader is gone: Python would say so once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    _on_interruption(_interrupt)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no ± is no reason to stop
    code = main()
    _on_interruption(_ignore)
    sys.stderr.flush()
    os._exit(code)  # everything is written; to take PyTorch and MLflow down in order would last up to a second
