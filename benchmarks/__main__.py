"""``python -m benchmarks``: how fast the simulator is and how much memory it needs; see docs/performance.md."""

import argparse
import sys
from pathlib import Path

from benchmarks import command
from pipeline.core.errors import UserError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    names = "comma-separated (default: all but repro)"
    parser.add_argument("--sections", type=lambda given: given.split(","), default=[], help=names)
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that everything runs")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default 1)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the JSON files, one per device")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a file and measure nothing")
    return parser.parse_args()


def main() -> int:
    """Measure, or show; return the exit code."""
    arguments = _arguments()
    try:
        if arguments.show:
            command.show(arguments.show)
        else:
            command.bench(arguments.sections, arguments.out, arguments.threads, arguments.tiny)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
