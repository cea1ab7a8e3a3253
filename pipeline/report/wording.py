"""Numbers and tables in Markdown, and what a section of the report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.figures import Figure


@dataclass(frozen=True)
class Section:
    """Figures of one kind.

    Attributes:
        heading: Without Markdown's marks.
        reading: How to read the figures.
        figures: By file name (without ending).
        table: What stands before them, in Markdown; empty for nothing.
        drawn: Names of further figures, whose files others write.
    """

    heading: str
    reading: str
    figures: Mapping[str, Figure]
    table: str = ""
    drawn: Sequence[str] = ()

    def markdown(self) -> list[str]:
        """Return the paragraphs, with links to the figures."""
        return [f"### {self.heading}", *([self.table] if self.table else []), self.reading, *self.links()]

    def links(self) -> list[str]:
        """Return a link to every figure."""
        return [f"![{self.heading}: {name}](figures/{name}.png)" for name in (*self.figures, *self.drawn)]


def described(content: Mapping[str, Any], leave_out: Sequence[str] = ()) -> str:
    """Return a component's content in words.

    Example:
        >>> described({"name": "mlp", "hidden": [32, 16], "schedule": {"name": "constant"}})
        'mlp; hidden 32, 16; schedule constant'
    """
    details = [f"{key} {_value(value)}" for key, value in content.items() if key != "name" and key not in leave_out]
    return "; ".join([content["name"], *details]).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return described(value)
    if isinstance(value, list):
        return listed(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def listed(values: Sequence[Any]) -> str:
    """Return the values with commas between them."""
    return ", ".join(map(str, values))


def percent(fraction: float) -> str:
    """Return a fraction as percent with three digits."""
    return f"{100 * fraction:.3g}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
