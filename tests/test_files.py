"""Files that are whole or absent."""

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.core.files import (
    content_hash,
    file_hash,
    move,
    read_json,
    read_sealed,
    refilling,
    replacing,
    root,
    write_json,
    write_sealed,
    write_text,
)


def test_a_new_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename across file systems is not atomic"
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_halfway():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_before_the_first_byte_leaves_nothing(tmp_path):
    def fail_at_once():
        with replacing(tmp_path / "file.txt"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_at_once()
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_refuses_names_the_file_and_not_its_temporary_name(tmp_path):
    def refused(name):
        with replacing(tmp_path / "file.txt") as temporary:
            raise OSError(28, "No space left on device", {"none": None, "temporary": temporary}.get(name, name))

    for name, told in (("none", tmp_path / "file.txt"), ("temporary", tmp_path / "file.txt"), ("other", "other")):
        with pytest.raises(OSError, match="No space left") as error:
            refused(name)
        assert str(error.value.filename) == str(told)


def test_a_disk_that_can_only_be_read_names_what_was_to_be_written(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for name in ("write_text", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(OSError, match="Read-only") as error:
        write_text(tmp_path / "params.yaml", "text")
    assert error.value.filename == str(tmp_path / "params.yaml")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "file.txt"
    texts = {letter * 200_000 for letter in "ab"}
    write_text(path, "a" * 200_000)
    writers = [threading.Thread(target=lambda t=text: [write_text(path, t) for _ in range(20)]) for text in texts]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    assert seen <= texts
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_written_sorted_and_read_back(tmp_path):
    path = tmp_path / "file.json"
    value = {"b": [1, 2.5, None, True], "a": {"ü": "text"}}
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {"x": -float("inf")}, object()], ids=["nan", "inf", "nested", "object"]
)
def test_what_is_no_json_is_refused_and_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(path, value)
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    (tmp_path / "file.txt" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"file.txt: a folder stands where a file is to be written"):
        write_text(tmp_path / "file.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_is_refilled_in_its_place(tmp_path):
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "reports"
    (elsewhere / "old").mkdir(parents=True)
    (elsewhere / ".writing-killed").write_text("half")
    link.symlink_to(elsewhere)
    with refilling(link) as folder:
        (folder / "figures").mkdir()
        (folder / "report.md").write_text("new")
        assert (elsewhere / "old").exists()
    assert link.is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["figures", "report.md"]


def test_an_error_leaves_a_folder_as_it_was(tmp_path):
    (tmp_path / "report.md").write_text("old")

    def fail_halfway():
        with refilling(tmp_path) as folder:
            (folder / "report.md").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_moves_to_another_file_system_arrives_whole_before_it_is_removed(kind, tmp_path, monkeypatch):
    source, target = tmp_path / "here" / "x", tmp_path / "there" / "x"
    source.parent.mkdir()
    target.parent.mkdir()
    if kind == "folder":
        (source / "in").mkdir(parents=True)
        (source / "in" / "file").write_text("mine")
    elif kind == "file":
        source.write_text("mine")
    else:
        source.symlink_to("nowhere")
    rename, seen = Path.rename, []

    def renamed(old, new):
        if old.parent != new.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        seen.append((os.path.lexists(source), new.parent))
        return rename(old, new)

    monkeypatch.setattr(Path, "rename", renamed)
    move(source, target)
    assert seen == [(True, target.parent)]
    assert list(source.parent.iterdir()) == []
    assert list(target.parent.iterdir()) == [target]
    assert {"file": target.is_file, "folder": (target / "in" / "file").exists, "link": target.is_symlink}[kind]()


def test_a_sealed_file_is_read_as_it_was_written_or_not_at_all(tmp_path):
    path, value = tmp_path / "file.json", {"b": [1, 2.5, None], "a": {"c": "text"}}
    write_sealed(path, value)
    assert read_sealed(path) == value
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"."):
            read_sealed(path)
        path.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"."):
            read_sealed(path)


def test_file_hash_is_the_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"abc" * 100_000)
    assert file_hash(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_content_hash_depends_on_the_content_alone():
    assert content_hash({"b": [1, 2], "a": None}) == content_hash({"a": None, "b": [1, 2]})
    others = [{"a": None, "b": [2, 1]}, {"a": None}, {"a": "None", "b": [1, 2]}, {"a": None, "b": [1, 2.5]}, [], ""]
    hashes = [content_hash(value) for value in [{"a": None, "b": [1, 2]}, *others]]
    assert len(set(hashes)) == len(hashes)
    assert content_hash(json.loads("[0.1]")) == content_hash([0.1])


def test_content_hash_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"x": float("nan")})


def test_root_is_the_working_folder_although_dvc_names_another_in_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", "/the/repository/around")
    assert root() == tmp_path.resolve()
