"""Files that are whole or absent."""

import hashlib
import json
import threading

import pytest

from pipeline.core.files import content_hash, file_hash, read_json, replacing, root, write_json, write_text


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
