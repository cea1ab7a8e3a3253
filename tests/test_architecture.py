"""The house: rooms import downwards only, heavy libraries stay in their rooms, files stay short."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support import ROOT

# A room may import from the rooms of the lines above its own, and from itself.
ROOMS = [
    {"core"},
    {"data", "attacks", "defences"},
    {"simulator"},
    {"runs"},
    {"search"},
    {"report"},
    {"tracking", "interface"},
    {"interface_search"},
    {"__init__", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
LOOSE = {"__init__", "__main__", "interface", "interface_search"}  # modules that stand in no room
BARE = ("core", "data", "attacks", "defences", "simulator")  # what runs on a bare GPU machine
OWNERS = {
    "mlflow": {"tracking"},
    "optuna": {"search", "report"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "pandas": {"search", "report", "tracking", "interface", "interface_search"},
    "scipy": {"core.kernels.elementary", "runs.seeds", "report"},
    "numba": {"core.kernels.basis"},
    "sklearn": {"data.sources"},
    "torchvision": {"data.sources"},
    "ruamel": {"runs.params", "runs.edit"},
    "loky": {"runs.pool"},
    "ray": {"runs.cluster", "runs.cluster_worker"},
    "dvc": set(),
    "byzfl": set(),
    "torchview": {"report"},
    "torchviz": {"report"},
    "graphviz": {"report"},
}
LATE = {"sklearn", "ray", "torchvision", "torchview", "torchviz"}  # imported inside functions only
PACKAGE = ROOT / "pipeline"
FILES = sorted(PACKAGE.rglob("*.py"))


def dotted(file: Path) -> str:
    """The module's name below ``pipeline``; a package's own file has the name of its folder."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(file): file for file in FILES}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that some statement of ``tree`` imports, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(file: Path) -> set[str]:
    """The modules of the package that a file imports."""
    names = {name.removeprefix("pipeline.") for name in imported(ast.parse(file.read_bytes()))}
    return {name for name in names if name in MODULES}


def at_module_level(file: Path) -> set[str]:
    """The libraries that importing the module imports."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return {name.split(".")[0] for name in imported(tree)}


def test_every_module_stands_in_a_room():
    assert {name.split(".")[0] for name in MODULES} == set(LEVEL)
    assert {file.stem for file in PACKAGE.glob("*.py")} == LOOSE


ASKS = ("core.kernels", "simulator.precision", "runs", "report.computed_on")  # runs chooses the device


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_the_device_and_the_compiler_are_asked_for_in_few_places(file):
    """Everywhere else the mathematics stands as it is, whatever computes it."""
    if not dotted(file).startswith(ASKS):
        asked = [node.attr for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Attribute)]
        assert not {"is_cuda", "is_cpu", "is_meta", "is_available", "get_cpu_capability", "data_ptr", "njit"} & set(
            asked
        )
        assert not re.search(r"device\.type|\.type [!=]= .(cpu|cuda)", file.read_text())


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_imports_go_downwards(file):
    room = dotted(file).split(".")[0]
    for target in ours(file):
        other = target.split(".")[0]
        assert other == room or LEVEL[other] < LEVEL[room], target


def test_modules_form_no_circle():
    """A package's own file imports what it holds; so do its modules import it: it counts for neither."""
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"}
    modules = {name: ours(file) - packages for name, file in MODULES.items() if name not in packages}
    assert len(list(TopologicalSorter(modules).static_order())) >= len(modules)


def test_benchmarks_are_no_part_of_the_package():
    assert not any("benchmarks" in imported(ast.parse(file.read_bytes())) for file in FILES)


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_is_imported_by_its_owners_only(library):
    def owned(name: str) -> bool:
        return any(name == owner or name.startswith(f"{owner}.") for owner in OWNERS[library])

    parsed = {name: {n.split(".")[0] for n in imported(ast.parse(file.read_bytes()))} for name, file in MODULES.items()}
    assert [name for name, libraries in parsed.items() if library in libraries and not owned(name)] == []
    early = [name for name, file in MODULES.items() if library in at_module_level(file)]
    assert early == [] if library in LATE else all(map(owned, early))


def test_importing_the_simulator_imports_no_heavy_library():
    modules = ", ".join(f"pipeline.{name}" for name in MODULES if name.split(".")[0] in BARE)
    heavy = sorted(set(OWNERS) - {"loky", "numba", "ruamel", "scipy"})  # numba computes on a CPU, and imports scipy
    program = f"import sys, {modules}; print(*[name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


STARTED = """
import sys
from pathlib import Path
import torch
from pipeline.runs import params, plan
from pipeline.search import forecast
from pipeline.simulator.metrics import evaluate
from pipeline.data.dataset import Split
parameters = params.load(Path("params.yaml"))
forecast.announced(parameters, "train@alie")
network = parameters.model.network((1, 8, 8), classes=10)
evaluate(network, network.initial(0)[None], Split(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)))
print(*[name for name in ("torch._dynamo", "torch._inductor", "sympy", "mlflow") if name in sys.modules])
"""


def test_a_stage_that_trains_does_not_import_pytorchs_compiler():
    """It takes more than a second, and some operations on shapes alone bring it in."""
    ran = subprocess.run([sys.executable, "-c", STARTED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_no_file_is_longer_than_400_lines():
    files = [*FILES, *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert [file.name for file in files if len(file.read_text().splitlines()) > 400] == []
