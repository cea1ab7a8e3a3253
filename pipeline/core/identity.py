"""Which source files a module depends on, and the hash of their code: a part of every result's identity."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def import_closure(modules: Iterable[str]) -> list[str]:
    """Return the modules of this package that importing ``modules`` needs, themselves included, sorted.

    Imports inside functions count. Modules that a package finds by itself (the families of rules and attacks) do not.

    Example:
        >>> import_closure(["pipeline.simulator.server"])
        ['pipeline.simulator', 'pipeline.simulator.server']
    """
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imports_of(module)
    return sorted(reached)


@cache
def imports_of(module: str) -> list[str]:
    """Return the modules of this package that ``module`` imports, with the packages around them."""
    tree = ast.parse(source_file(module).read_bytes())
    direct = {name for node in ast.walk(tree) for name in _imported(node)}
    around = {name.rsplit(".", 1)[0] for name in {*direct, module} if "." in name}
    return sorted((direct | around) - {PACKAGE.name})  # the package's own file only offers names to Python


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _is_module(alias.name))
    if isinstance(node, ast.ImportFrom) and node.module and _is_module(node.module):
        yield node.module
        yield from (name for alias in node.names if _is_module(name := f"{node.module}.{alias.name}"))


def _is_module(name: str) -> bool:
    return name.split(".")[0] == PACKAGE.name and source_file(name).exists()


def source_file(module: str) -> Path:
    """Return the file of a module of this package."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def code_hash(modules: frozenset[str]) -> str:
    """Return the sha256 over the code in the import closure of ``modules``, without comments and docstrings."""
    digest = hashlib.sha256()
    for module in import_closure(modules):
        digest.update(f"{module}\0{_module_hash(module)}\0".encode())
    return digest.hexdigest()


@cache
def _module_hash(module: str) -> str:
    return hashlib.sha256(code(source_file(module).read_bytes()).encode()).hexdigest()


def code(source: bytes | str) -> str:
    """Return the syntax tree of ``source`` as text: equal for sources that differ in comments, docstrings and layout.

    Written out here because that of ``ast.dump`` differs between versions of Python.

    Example:
        >>> code("x = 1  # one") == code("x = (1)")
        True
        >>> code("x = 1") == code("x = 2")
        False
    """
    return _written(ast.parse(source))


def _written(part: Any) -> str:
    if isinstance(part, list):
        return f"[{','.join(map(_written, part))}]"
    if not isinstance(part, ast.AST):
        return repr(part)
    fields = {name: value for name, value in ast.iter_fields(part) if value is not None}
    if isinstance(part, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(part):
        fields["body"] = part.body[1:]
    written = (f"{name}={_written(value)}" for name, value in fields.items() if value != [])
    return f"{type(part).__name__}({','.join(written)})"
