"""What exists, as text: every registered component with its formula, condition, parameters and reference."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.attacks import ATTACKS
from pipeline.core.component import Component, Registry
from pipeline.data.partitions import PARTITIONS
from pipeline.data.sources import SOURCES
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.preaggregators import PREAGGREGATORS
from pipeline.simulator.local_updates import LOCAL_UPDATES
from pipeline.simulator.models import MODELS
from pipeline.simulator.schedules import SCHEDULES

SECTIONS: dict[str, Registry[Any]] = {
    "Aggregation rules": AGGREGATORS,
    "Pre-aggregations": PREAGGREGATORS,
    "Attacks": ATTACKS,
    "Partitions": PARTITIONS,
    "Models": MODELS,
    "Data sources": SOURCES,
    "Local updates": LOCAL_UPDATES,
    "Learning-rate schedules": SCHEDULES,
}
INTRODUCTION = """# Catalogue

What every name in `params.yaml` stands for: `python -m pipeline list --markdown > docs/catalogue.md` writes this page
from the docstrings. n vectors x_1..x_n reach the server, f is how many Byzantine ones a rule is told to tolerate;
b Byzantine workers see h = n - b honest vectors g_1..g_h with mean mu and deviation sd; theta is the strength of an
attack, C the number of classes, d the number of parameters.
"""
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def text() -> str:
    """Return the catalogue for a terminal: for each component a line with its formula, and what else is known below."""
    return "\n".join(line for title, registry in SECTIONS.items() for line in _section_lines(title, registry))


def _section_lines(title: str, registry: Registry[Any]) -> Iterator[str]:
    yield from (title, "=" * len(title), "")
    for name in registry.names:
        cls = registry[name]
        yield f"{name}: {cls.formula}"
        yield from (f"    {label}: {value}" for label, value in _facts(cls))
        yield from (f"    {parameter.replace('``', '')}" for parameter in parameters(cls))
        yield ""


def _facts(cls: type[Component]) -> Iterator[tuple[str, str]]:
    """Yield what the class says about itself besides its formula, with a label."""
    if hasattr(cls, "condition"):
        yield "needs", cls.condition
    if hasattr(cls, "knowledge"):
        yield "adversary knows", cls.knowledge
    if hasattr(cls, "strengths"):
        yield "search range of strength", " to ".join(f"{bound:g}" for bound in cls.strengths)
    if cls.reference:
        yield "reference", cls.reference


def parameters(cls: type[Component]) -> list[str]:
    """Return a line for each parameter: its name, type, range, default and meaning.

    Example:
        >>> from pipeline.attacks import ATTACKS
        >>> parameters(ATTACKS["ipm"])[-1]
        "strength: number > 0 or null, by default null; theta; null: the literature's default"
    """
    described = cls.model_json_schema()["properties"]
    return [_parameter(name, schema) for name, schema in described.items() if name != "name"]


def _parameter(name: str, schema: Mapping[str, Any]) -> str:
    default = f", by default {_plain(schema['default'])}" if "default" in schema else ""
    meaning = f"; {schema['description']}" if "description" in schema else ""
    return f"{name}: {_values(schema)}{default}{meaning}"


def _values(schema: Mapping[str, Any]) -> str:
    """Return the values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(_values(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(_plain(value) for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_values(schema['items'])}"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if key in schema]
    return " ".join([schema["type"], " and ".join(bounds)]).strip()


def _plain(value: Any) -> str:
    return json.dumps(value).strip('"')


def markdown() -> str:
    """Return the page docs/catalogue.md: an overview of each section, then each component's docstring."""
    pages = [_section_page(title, registry) for title, registry in SECTIONS.items()]
    return "\n".join([INTRODUCTION, *pages])


def _section_page(title: str, registry: Registry[Any]) -> str:
    rows = [f"| [{name}](#{name}) | {_escaped(registry[name].formula)} |" for name in registry.names]
    entries = [_entry(name, registry[name]) for name in registry.names]
    return "\n".join([f"## {title}", "", "| name | what it is |", "|---|---|", *rows, "", *entries])


def _entry(name: str, cls: type[Component]) -> str:
    """Return the heading, the docstring without its example, the parameters, and what a search needs to know."""
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    kept = [paragraph for paragraph in paragraphs if not paragraph.startswith(("Example:", "Attributes:"))]
    facts = [f"- {label}: {_escaped(value)}" for label, value in _facts(cls) if label != "reference"]
    lines = [f"- `{line.split(':')[0]}`:{_escaped(line.partition(':')[2])}" for line in parameters(cls)]
    return "\n".join([f"### {name}", "", *(f"{_paragraph(p)}\n" for p in kept), *facts, *lines, ""])


def _paragraph(paragraph: str) -> str:
    """Return a paragraph of a docstring; one that does not end as a sentence is a formula."""
    if not paragraph.endswith((".", ":")):
        return "\n".join(["```text", paragraph.replace("``", ""), "```"])
    label, colon, rest = paragraph.partition(":")
    if label in ("Differs from", "Reference"):
        return f"**{label}**{colon}{_escaped(rest)}"
    return _escaped(paragraph)


def _escaped(words: str) -> str:
    """Return ``words`` as Markdown that shows them as they are, the double back-quotes of docstrings as code."""
    parts = words.split("``")
    return "".join(
        f"`{part}`" if odd else re.sub(r"([\\*_<|\[\]])", r"\\\1", part)
        for part, odd in zip(parts, [False, True] * len(parts), strict=False)
    )
