"""What a process may still take: what the machine has available, within the limits of its containers."""

from types import SimpleNamespace

import pytest

from pipeline.runs import memory

GB = 10**9


@pytest.fixture
def available(monkeypatch, tmp_path):
    """What is available on a machine with 8 GB available, of them 1 GB free, and these control groups."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GB, free=GB))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OF_THIS_PROCESS", tmp_path / "self")

    def of(groups, files):
        (tmp_path / "self").write_text(groups)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return memory.available()

    return of


def test_without_limits_all_that_is_available_counts_not_only_what_is_free(available):
    assert available("", {}) == 8 * GB
    assert available("0::/\n", {"memory.max": "max", "memory.current": GB}) == 8 * GB


def test_a_container_has_its_limit_minus_its_use_and_the_cache_of_files_is_no_use(available):
    files = {"memory.max": 4 * GB, "memory.current": 3 * GB, "memory.stat": f"anon 5\ninactive_file {2 * GB}\nfile 7"}
    assert available("0::/\n", files) == 3 * GB


def test_the_tightest_of_the_groups_around_the_process_counts(available):
    files = {
        "user/me/memory.max": 6 * GB,
        "user/me/memory.current": GB,
        "user/memory.max": 5 * GB,
        "user/memory.current": 3 * GB,
        "other/memory.max": 1,
        "other/memory.current": 0,
    }
    assert available("0::/user/me\n", files) == 2 * GB


def test_the_first_version_of_control_groups_is_read_too(available):
    files = {
        "memory/memory.limit_in_bytes": 4 * GB,
        "memory/memory.usage_in_bytes": 2 * GB,
        "memory/memory.stat": f"inactive_file 9\ntotal_inactive_file {GB}",
    }
    groups = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n0::/\n"
    assert available(groups, files) == 3 * GB
    assert available(groups, {"memory/memory.limit_in_bytes": 2**63 - 4096}) == 8 * GB


def test_a_container_beyond_its_limit_has_nothing_left(available):
    assert available("0::/\n", {"memory.max": GB, "memory.current": 2 * GB}) == 0


def test_this_machine_has_some():
    assert 10**7 < memory.available() < 10**14
