"""``python -m pipeline list`` and docs/catalogue.md say what the registries hold."""

import sys
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field
from support import ROOT

from pipeline.__main__ import main
from pipeline.core.component import Component, Registry
from pipeline.runs import catalogue
from pipeline.runs.catalogue import SECTIONS, markdown, parameters, text

EVERY_COMPONENT = pytest.mark.parametrize(
    ("title", "name"), [(title, name) for title, registry in SECTIONS.items() for name in registry.names]
)


class Ball(Component):
    """A ball.

    x -> x ``a`` * y

    Bounces, <a> and b_i.

    Differs from: a cube.

    Example:
        >>> 1
        1
    """

    name: Literal["ball"] = "ball"
    formula: ClassVar[str] = "x | y"
    reference: ClassVar[str] = "me"
    condition: ClassVar[str] = "n > 2"
    strengths: ClassVar[tuple[float, float]] = (0.1, 100.0)
    size: int = Field(ge=1, lt=9, description="see ``colour``")
    colour: Literal["red", "blue"] = "red"
    weight: float | None = Field(None, gt=0)
    spots: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)] = ()
    flat: bool = False


@pytest.fixture
def toys(monkeypatch):
    registry: Registry[Component] = Registry("toy")
    registry.register(Ball)
    monkeypatch.setattr(catalogue, "SECTIONS", {"Toys": registry})


def test_the_page_is_current():
    if (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8") != markdown():
        command = "python -m pipeline list --markdown > docs/catalogue.md"
        pytest.fail(f"docs/catalogue.md is stale; run: {command}", pytrace=False)


@EVERY_COMPONENT
def test_every_component_is_described_in_both_forms(title, name):
    cls = SECTIONS[title][name]
    assert cls.formula
    assert f"\n{name}: {cls.formula}\n" in text()
    assert f"\n### {name}\n" in markdown()
    for parameter in cls.model_fields.keys() - {"name"}:
        assert any(line.startswith(f"{parameter}: ") for line in parameters(cls))


def test_names_are_anchors_of_the_page_so_no_two_sections_share_one():
    names = [name for registry in SECTIONS.values() for name in registry.names]
    assert len(names) == len(set(names))


def test_parameters_tell_type_range_default_and_meaning():
    assert parameters(Ball) == [
        "size: integer >= 1 and < 9; see ``colour``",
        "colour: red or blue, by default red",
        "weight: number > 0 or null, by default null",
        "spots: list of integer >= 0, by default []",
        "flat: boolean, by default false",
    ]


def test_the_text(toys):
    assert text().splitlines() == [
        "Toys",
        "====",
        "",
        "ball: x | y",
        "    needs: n > 2",
        "    search range of strength: 0.1 to 100",
        "    reference: me",
        "    size: integer >= 1 and < 9; see colour",
        "    colour: red or blue, by default red",
        "    weight: number > 0 or null, by default null",
        "    spots: list of integer >= 0, by default []",
        "    flat: boolean, by default false",
    ]


def test_the_page(toys):
    assert markdown().partition("## Toys")[2].splitlines()[1:] == [
        "",
        "| name | what it is |",
        "|---|---|",
        "| [ball](#ball) | x \\| y |",
        "",
        "### ball",
        "",
        "A ball.",
        "",
        "```text",
        "x -> x a * y",
        "```",
        "",
        "Bounces, \\<a> and b\\_i.",
        "",
        "**Differs from**: a cube.",
        "",
        "- needs: n > 2",
        "- search range of strength: 0.1 to 100",
        "- `size`: integer >= 1 and \\< 9; see `colour`",
        "- `colour`: red or blue, by default red",
        "- `weight`: number > 0 or null, by default null",
        "- `spots`: list of integer >= 0, by default \\[\\]",
        "- `flat`: boolean, by default false",
    ]


@pytest.mark.parametrize(("arguments", "printed"), [(["list"], text), (["list", "--markdown"], markdown)])
def test_the_command_needs_no_parameters(arguments, printed, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    assert main() == 0
    assert capsys.readouterr().out == printed()
