"""The environment variables with which a process that computes must start: libraries read them while they load.

Nothing here imports a library, so that it can be used before any of them is there.
"""

import os

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# What NumPy computes with: the linear algebra of the oldest x86-64 processor that its OpenBLAS knows, and no function
# that only some processors have. Loops of PyTorch and of numba need no such limit (core/kernels).
SAME_EVERYWHERE = {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}


def environment() -> dict[str, str]:
    """Return the variables of a process that trains.

    MKL, which multiplies for convolutional networks, is told to make sums whose order does not depend on where an array
    lies in memory, unless the user has asked for something else.
    """
    return {**ONE_THREAD, **SAME_EVERYWHERE, "MKL_CBWR": os.environ.get("MKL_CBWR", "AUTO,STRICT")}


def compute_alike() -> None:
    """Set the variables of this process that make NumPy's numbers the same everywhere; the user's own have priority."""
    for name, value in SAME_EVERYWHERE.items():
        os.environ.setdefault(name, value)
