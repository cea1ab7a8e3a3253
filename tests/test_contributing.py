"""What is written for the people who come next is true: contributing, hooks, licence, citation, changelog."""

import inspect
import re
import tomllib
from importlib import import_module

import pytest
from ruamel.yaml import YAML
from support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
COMPONENTS = re.findall(r"^\| `(pipeline/[\w/]+)/` \| `(\w+)` \| (.+) \| (.+) \|$", CONTRIBUTING, flags=re.MULTILINE)


def read_yaml(name):
    return YAML(typ="safe").load((ROOT / name).read_text())


@pytest.mark.parametrize(("folder", "base", "methods", "twin"), COMPONENTS, ids=[base for _, base, *_ in COMPONENTS])
def test_a_component_is_asked_for_what_its_base_class_declares(folder, base, methods, twin):
    cls = getattr(import_module(folder.replace("/", ".")), base)
    told = dict(re.findall(r"`(\w+)(?:\((.*?)\))?`", methods))
    assert set(told) == cls.__abstractmethods__
    for name, parameters in told.items():
        if parameters:
            assert list(inspect.signature(getattr(cls, name)).parameters) == ["self", *parameters.split(", ")]
        else:
            assert isinstance(getattr(cls, name), property)
    if twin != "none":
        family, signature = re.fullmatch(r"`(\w+)/` `(\(.+\))`", twin).groups()
        assert signature in import_module(f"oracles.{family}").SIGNATURE


def test_every_kind_of_component_is_told():
    registered = {path.parent for path in (ROOT / "pipeline").rglob("__init__.py") if "Registry[" in path.read_text()}
    assert {ROOT / folder for folder, *_ in COMPONENTS} == registered


def test_every_linked_file_exists():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "DECISIONS.md"):
        links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text())
        assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_hooks_of_a_commit_are_the_quick_part_of_make_test():
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    recipe = (ROOT / "Makefile").read_text().partition("\ntest:")[2].partition("\n\n")[0]
    commands = [line.strip() for line in recipe.splitlines()[1:]]
    assert [hook["entry"] for hook in repository["hooks"]] == [line for line in commands if "pytest" not in line]
    assert len(commands) == len(repository["hooks"]) + 1
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_what_is_cited_is_this_version():
    cited = read_yaml("CITATION.cff")
    fields = {"title": "name", "version": "version", "license": "license"}
    assert {name: cited[name] for name in fields} == {name: PROJECT[field] for name, field in fields.items()}


def test_the_licence_is_that_of_the_package():
    (file,) = PROJECT["license-files"]
    (author,) = read_yaml("CITATION.cff")["authors"]
    text = (ROOT / file).read_text()
    assert text.startswith(f"{PROJECT['license']} License\n")
    assert f"\nCopyright (c) 2026 {author['name']}\n" in text


def test_the_changelog_ends_with_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings == ["Unreleased", PROJECT["version"]]
