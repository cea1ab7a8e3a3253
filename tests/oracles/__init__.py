"""Slow twins: every component once more, in plain Python and float64, with loops, straight from its definition.

The twin of the component ``krum`` is the function ``krum`` in any module of its family's folder, with an underscore at
the end where Python needs the name (``lambda_``). Every public function in such a folder is a twin. What it is given
says ``SIGNATURE`` in the folder's ``__init__.py``; parameters of the component come by name, and where the component is
random a twin also takes ``draw(kind, count, *forks)``: a list of ``count`` numbers, ``kind`` uniform, normal or
permutation, from the stream of the step, forked by each of ``forks`` in turn.

A vector is a list of floats, the received vectors a list of vectors. Nothing here may import from ``pipeline``.
"""

import importlib
import inspect
import pkgutil
from functools import cache


class NoAnswer(Exception):
    """Raised by a twin where the definition leaves the result open, or where brute force would take too long."""


@cache
def twins(family):
    """The twins in the folder ``family``, by the names of their components."""
    package = importlib.import_module(f"oracles.{family}")
    found = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                assert name.rstrip("_") not in found, f"two slow twins of {name} in tests/oracles/{family}/"
                found[name.rstrip("_")] = function
    return found


def twin(family, name):
    """The twin of one component."""
    if name not in twins(family):
        signature = importlib.import_module(f"oracles.{family}").SIGNATURE
        raise LookupError(f"tests/oracles/{family}/: write the slow twin `def {name}{signature}: ...`")
    return twins(family)[name]
