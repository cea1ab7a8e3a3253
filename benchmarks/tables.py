"""A document of measurements as Markdown."""

from collections.abc import Sequence

from benchmarks.document import Document, Machine, Measurement, Row, Value


def markdown(document: Document) -> str:
    """Return the whole document."""
    parts = [machine_line(document.machine), *(section(measured) for measured in document.sections.values())]
    return "\n\n".join(parts) + "\n"


def machine_line(machine: Machine) -> str:
    """Return the machine in one line."""
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    versions = f"torch {machine.torch_version}, Python {machine.python_version}"
    where = f"{machine.cpu}, {machine.cores} cores, {threads}; {versions}"
    gpu = "" if machine.device == machine.cpu else f"{machine.device}; "
    return gpu + where + (". Toy sizes: these times say nothing." if machine.tiny else ".")


def section(measured: Measurement) -> str:
    """Return a section with its heading, method and table."""
    body = table(measured.rows) if measured.missing is None else f"Not measured: {measured.missing}"
    return f"### {measured.title}\n\n{measured.method}\n\n{body}\n\n({measured.commit}, {measured.date})"


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table, the columns in the order in which they appear.

    Example:
        >>> print(table([{"name": "mean", "ms": 1.2345}, {"name": "krum", "ms": None}]))
        | name | ms |
        |---|---|
        | mean | 1.23 |
        | krum | - |
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines)


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
