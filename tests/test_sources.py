"""The import closure, read from the files, is what Python really imports."""

import subprocess
import sys

import pytest
from support import ROOT

from pipeline.core import identity as sources
from pipeline.core.identity import code_hash, import_closure, imports_of, source_file


def really_imported(module: str) -> set[str]:
    program = f"import sys, {module}; print(*[name for name in sys.modules if name.split('.')[0] == 'pipeline'])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_the_closure_holds_what_python_imports_but_for_the_families_a_package_finds():
    finders = [
        file.parent for file in (ROOT / "pipeline").rglob("__init__.py") if "import_families" in file.read_text()
    ]
    assert len(finders) == 8
    members = {
        f"{'.'.join(folder.relative_to(ROOT).parts)}.{file.stem}" for folder in finders for file in folder.glob("*.py")
    }
    missing = really_imported("pipeline.simulator.loop") - set(import_closure(["pipeline.simulator.loop"]))
    only_families_import = {"pipeline.core.kernels.weiszfeld", "pipeline.defences.diameter"}
    assert only_families_import <= missing
    assert {"pipeline"} <= missing <= members | only_families_import | {"pipeline"}
    assert not any(name.endswith(".base") for name in missing)


def test_a_rule_brings_the_rules_it_builds_on():
    closure = import_closure(["pipeline.defences.aggregators.subsets"])
    assert {"pipeline.defences.aggregators.base", "pipeline.defences.diameter", "pipeline.core.vectors"} <= set(closure)
    assert "pipeline.defences.aggregators.distance" not in closure


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``package(name=text, ...)`` makes a package ``tiny`` of those modules."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    monkeypatch.setattr(sources, "PACKAGE", folder)

    def write(**modules: str) -> None:
        for name, text in {"__init__": "", **modules}.items():
            (folder / f"{name}.py").write_text(text)
        imports_of.cache_clear()
        code_hash.cache_clear()
        sources._module_hash.cache_clear()

    yield write
    imports_of.cache_clear()
    code_hash.cache_clear()
    sources._module_hash.cache_clear()


def test_every_way_to_import_counts(package):
    package(
        a="import tiny.b\nimport os.path as path\n",
        b="from tiny import c\n",
        c="def late():\n    from tiny.d import thing\n",
        d="from collections import abc\nthing = 1\nimport tiny.a\n",
        e="",
    )
    assert import_closure(["tiny.a"]) == ["tiny.a", "tiny.b", "tiny.c", "tiny.d"]
    assert import_closure(["tiny.e"]) == ["tiny.e"]


def test_the_hash_changes_with_any_file_of_the_closure_and_with_no_other(package):
    package(a="import tiny.b\n", b="x = 1\n", c="")
    first = code_hash(frozenset({"tiny.a"}))
    package(a="import tiny.b\n", b="x = 1\n", c="x = 2\n")
    assert code_hash(frozenset({"tiny.a"})) == first
    package(a="import tiny.b\n", b="x = 2\n", c="")
    second = code_hash(frozenset({"tiny.a"}))
    assert second != first
    package(
        __init__="x = 1\n", a="import tiny.b\n", b="x = 2\n", c=""
    )  # it offers names to Python, and computes nothing
    assert code_hash(frozenset({"tiny.a"})) == second


def test_comments_docstrings_and_layout_are_no_code(package):
    package(a='"""A."""\n\n\nclass X:\n    """An X."""\n\n    y = 1\n\n\ndef f(): return {"k": 1}\n')
    first = code_hash(frozenset({"tiny.a"}))
    package(a='"""B."""\nclass X:\n    y = (1)  # one\ndef f():\n    """Return k."""\n    return {"k":\n 1}\n')
    assert code_hash(frozenset({"tiny.a"})) == first
    for changed in ('"""A."""\nclass X:\n    y = 1\ndef f(): return {"k": 1.0}\n', '"""A."""\nX = 1\n"A"\n'):
        package(a=changed)
        assert code_hash(frozenset({"tiny.a"})) != first


def test_a_package_is_its_init_file():
    assert source_file("pipeline.attacks").name == "__init__.py"
    assert source_file("pipeline.attacks.base").name == "base.py"
