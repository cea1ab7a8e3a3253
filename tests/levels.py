"""Other machines, as far as one machine can play them: the variables that hold its libraries to what those have.

``LEVELS`` are the instruction sets of PyTorch and MKL that this processor has. ``OTHER_LIBRARIES`` has numba compile
for the first x86-64 processors, and the C library take its functions without fused multiplication.
"""

from pathlib import Path


def _flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":")[1].split()}


_ALL = {
    "default": ("sse4_2", {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
    "avx2": ("avx2", {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "avx512": ("avx512bw", {"ATEN_CPU_CAPABILITY": "avx512", "MKL_ENABLE_INSTRUCTIONS": "AVX512"}),
}
LEVELS = {name: variables for name, (flag, variables) in _ALL.items() if flag in _flags()}
OTHER_LIBRARIES = {
    "other libraries": {
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA",
        "MKL_CBWR": "COMPATIBLE",
    }
}
