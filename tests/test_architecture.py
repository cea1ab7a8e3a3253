"""Imports go strictly downwards, heavy libraries stay with their owners, files stay short."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT

# A module may import from the layers above its own line only; inside a package, from the modules before it.
LAYERS = [
    [
        "diameter",
        "environment",
        "errors",
        "files",
        "kernels",
        "memory",
        "paths",
        "progress",
        "sources",
        "watchdog",
    ],
    ["dataset", "elementary", "pool", "products", "registry"],
    ["order", "rng", "weiszfeld"],
    ["vectors"],
    ["detection", "images"],
    ["aggregators", "attacks", "augmentation", "data", "models", "partition", "preaggregators", "sampling", "server"],
    ["defence", "gradients"],
    ["local", "metrics"],
    ["cell"],
    ["precision", "search_checks"],
    ["catalogue", "params", "program"],
    ["capture", "plan"],
    ["simulation"],
    ["execution", "store"],
    ["evaluator"],
    ["search"],
    ["computed_on", "intervals", "search_results"],
    ["result_rows", "search_export", "search_tables"],
    ["analysis", "bench", "tracking_runs"],
    ["figures", "heterogeneity", "published", "tracking_search", "tracking_store"],
    ["partition_figures", "search_figures", "tracking", "wording"],
    ["search_report"],
    ["report_text"],
    ["compare", "report", "track", "train"],
    ["__main__"],
]
FAMILIES = {
    "aggregators": ["base", "__init__", "coordinatewise", "distance", "iterative", "selection", "spectral", "subsets"],
    "bench": [
        *("__init__", "document", "obvious", "tables", "timing"),
        *("subjects", "workloads", "grid", "memory", "rules", "startup", "steps", "peer", "command"),
    ],
    "images": ["base", "__init__", "downloaded", "offline"],
    "attacks": ["space", "base", "__init__", "bounded", "noise", "omniscient", "history", "optimal", "poisoning"],
    "search": ["__init__", "study", "samplers", "measure", "finalists", "stage", "bench", "bench_stealth"],
}
SIMULATOR = [name for layer in LAYERS[:14] for name in layer]  # what runs on a bare GPU machine
OWNERS = {
    "mlflow": {"tracking", "tracking_runs"},
    "optuna": {"search.bench", "search.samplers", "search_export"},
    "matplotlib": {"figures", "partition_figures", "search_export", "search_figures"},
    "pandas": {
        *("analysis", "figures", "heterogeneity", "intervals", "published", "report_text"),
        *("search.bench", "search.bench_stealth", "search.finalists", "search.measure", "search.stage"),
        *("search_export", "search_figures", "search_report", "search_results", "search_tables"),
        *("tracking_runs", "tracking_search"),
    },
    "numba": {"kernels"},
    "scipy": {"elementary", "intervals", "search.bench"},
    "sklearn": {"images.offline"},
    "torchvision": {"images.downloaded"},
    "ruamel": {"params"},
    "loky": {"pool"},
    "dvc": set(),
    "byzfl": {"bench.peer"},
}
LATE = {"byzfl", "sklearn", "torchvision"}  # imported inside functions only
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
FILES = sorted((ROOT / "pipeline").rglob("*.py"))


def dotted(file: Path) -> str:
    """The module's name below ``pipeline``; a package's own file ends in ``__init__``."""
    return ".".join(file.relative_to(ROOT / "pipeline").with_suffix("").parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that some statement of ``tree`` imports, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "pipeline":
                yield from (f"pipeline.{alias.name}" for alias in node.names)
            else:
                yield node.module


def ours(file: Path) -> list[str]:
    names = set(imported(ast.parse(file.read_bytes())))
    return sorted(name.removeprefix("pipeline.") for name in names if name.split(".")[0] == "pipeline")


def at_module_level(file: Path) -> set[str]:
    """The libraries that importing the module imports."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return {name.split(".")[0] for name in imported(tree)}


def test_every_module_has_its_layer():
    found = {dotted(file) for file in FILES} - {"__init__"}
    families = {f"{package}.{module}" for package, modules in FAMILIES.items() for module in modules}
    assert found == (set(LEVEL) - set(FAMILIES)) | families


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_imports_go_strictly_downwards(file):
    here, *inside = dotted(file).split(".")
    for target in ours(file):
        package, *family = target.split(".")
        if inside and package == here:
            order = FAMILIES[here]
            assert order.index((family or ["__init__"])[0]) < order.index(inside[0]), target
        else:
            assert LEVEL[package] < LEVEL.get(here, 0), target


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_is_imported_by_its_owners_only(library):
    users = {
        dotted(file) for file in FILES if library in {n.split(".")[0] for n in imported(ast.parse(file.read_bytes()))}
    }
    assert users <= OWNERS[library]
    early = {dotted(file) for file in FILES if library in at_module_level(file)}
    assert early <= (set() if library in LATE else OWNERS[library])


def test_importing_the_simulator_imports_no_heavy_library():
    modules = ", ".join(f"pipeline.{name}" for name in SIMULATOR)
    heavy = sorted(set(OWNERS) - {"loky", "numba", "ruamel", "scipy"})  # numba computes on a CPU, and imports scipy
    program = f"import sys, {modules}; print(*[name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_no_file_is_longer_than_400_lines():
    files = [*FILES, *(ROOT / "tests").glob("*.py")]
    assert [file.name for file in files if len(file.read_text().splitlines()) > 400] == []


def test_generators_are_made_in_one_place():
    names = {"manual_seed", "default_rng", "Generator", "RandomState", "seed", "PCG64"}
    makers = {
        dotted(file)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
    }
    assert makers == {"rng"}
    everything = {name for file in FILES for name in imported(ast.parse(file.read_bytes()))}
    assert not everything & {"random", "torch.random", "numpy.random"}
