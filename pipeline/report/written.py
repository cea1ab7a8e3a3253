"""What the stage ``analysis`` wrote, by its checksums: what was edited since is not quoted or published."""

from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, read_sealed, write_sealed
from pipeline.report.computed_on import results_hash

CHECKSUMS = "checksums.json"


def seal(root: Path, folder: Path) -> None:
    """Write down the checksums of all that is in ``folder``, which becomes ``reports``, and of the summary."""
    files = {path.relative_to(folder).as_posix(): file_hash(path) for path in folder.rglob("*") if path.is_file()}
    write_sealed(folder / CHECKSUMS, {"files": files, "results": results_hash(root)})


def check(root: Path) -> None:
    """Check ``results/summary.json``, ``results/metrics`` and ``reports``.

    Raises:
        UserError: A file is missing, or not as it was written.
    """
    reports = root / "reports"
    if not reports.exists():
        raise UserError(f"{reports}: no such result; run `dvc repro analysis`")
    try:
        written = read_sealed(reports / CHECKSUMS)
        edited = [name for name, checksum in written["files"].items() if file_hash(reports / name) != checksum]
        if written["results"] != results_hash(root):
            edited.append("results/summary.json or results/metrics")
        if edited:
            raise ValueError(f"not as it was written: {', '.join(edited)}")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{reports}: not a whole result ({error}); run `dvc repro -f -s analysis`") from None
