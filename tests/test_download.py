"""Downloads run against a loopback server that holds small files in the real formats."""

import gzip
import hashlib
import io
import pickle
import struct
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.data.dataset import load
from pipeline.data.prepare import Data, prepare
from pipeline.data.sources import SOURCES
from pipeline.data.sources.downloaded import Downloaded

DIGITS = {"source": {"name": "digits"}, "validation_fraction": 0.1, "test_fraction": 0.2, "split_seed": 0}
FEW = {"train": 40, "t10k": 10}  # images of the small MNIST
SHORT = 10_000  # bytes until a connection is cut
FEW_EMNIST = {"train": 6, "test": 4}


def data(**changes) -> Data:
    return parse(Data, {**DIGITS, **changes}, "data")


def random_images(count: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *shape), np.uint8), generator.integers(0, 10, count, np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def mnist_files() -> dict[str, bytes]:
    files = {}
    for seed, (part, count) in enumerate(FEW.items()):
        images, labels = random_images(count, (28, 28), seed)
        files[f"{part}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(labels)
    return files


class Python2Pickler(pickle.Pickler):
    """Spells a NumPy dtype as the CIFAR-10 archive of 2009 does, with the flags as integers."""

    def reducer_override(self, value):
        return (np.dtype, ("u1", 0, 1), value.__reduce__()[2]) if isinstance(value, np.dtype) else NotImplemented


def python2_pickle(value: object) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar_members(label_key: str = "labels") -> dict[str, bytes]:
    members = {}
    for seed, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        images, labels = random_images(5, (3072,), seed)
        members[name] = python2_pickle({"data": images, label_key: labels.tolist()})
    return members


def tar_gz(folder: str, members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def emnist_archive() -> bytes:
    """The archive with its balanced split, the images transposed, and a file of another split."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("gzip/emnist-letters-train-images-idx3-ubyte.gz", b"no gzip")
        for seed, (split, count) in enumerate(FEW_EMNIST.items()):
            images, labels = random_images(count, (28, 28), seed)
            archive.writestr(f"gzip/emnist-balanced-{split}-images-idx3-ubyte.gz", idx(images.transpose(0, 2, 1)))
            archive.writestr(f"gzip/emnist-balanced-{split}-labels-idx1-ubyte.gz", idx(labels))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Server:
    """Serves ``files`` by base name under any folder but /dead/ (404), /stalled/ (silence until ``closing``) and /page/
    (an HTML page).

    ``cut`` names a file that breaks off halfway; under /resuming/ every answer is cut after ``SHORT`` bytes, and the
    next one can begin there.
    """

    def __init__(self) -> None:
        self.closing, self.outwaited = threading.Event(), False
        self.files: dict[str, bytes] = {}
        self.cut = ""
        self.requested: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requested.append(self.path)
                name = self.path.rpartition("/")[2]
                if self.path.startswith("/stalled/"):
                    server.outwaited |= not server.closing.wait(30)
                    return
                body = b"<!DOCTYPE html><html>Sign in" if self.path.startswith("/page/") else server.files[name]
                asked = self.headers.get("Range") if self.path.startswith("/resuming/") else None
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                self.send_response(404 if self.path.startswith("/dead/") else 206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                end = start + SHORT if self.path.startswith("/resuming/") else None
                self.wfile.write(body[: len(body) // 2] if name == server.cut else body[start:end])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def fetched(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.requested}


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def point_to(server: Server, name: str, files: dict[str, bytes], monkeypatch) -> None:
    server.files = dict(files)
    monkeypatch.setattr(SOURCES[name], "public_mirrors", (f"{server.address}/dead/",))
    monkeypatch.setattr(SOURCES[name], "archives", {file: md5(content) for file, content in files.items()})


@pytest.fixture
def mnist(server, monkeypatch):
    """The source mnist with small files: the public mirror is dead, the user's own one is good."""
    point_to(server, "mnist", mnist_files(), monkeypatch)
    return SOURCES.parse({"name": "mnist", "mirrors": [f"{server.address}/good"]}, "data.source")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_arrive_unchanged_from_the_first_live_mirror(name, server, monkeypatch, tmp_path):
    point_to(server, name, mnist_files(), monkeypatch)
    mirrors = [f"{server.address}/dead/", f"{server.address}/good/", f"{server.address}/unused/"]
    source = SOURCES.parse({"name": name, "mirrors": mirrors}, "data.source")
    source.download(tmp_path)
    raw = load_file(source.raw_file(tmp_path))
    for split, (part, count), seed in zip(["train", "test"], FEW.items(), [0, 1], strict=True):
        images, labels = random_images(count, (28, 28), seed)
        assert np.array_equal(raw[f"{split}_images"], images[:, None]), part
        assert np.array_equal(raw[f"{split}_labels"], labels.astype(np.int64))
    for file in server.files:
        tried = [path.split("/")[1] for path in server.requested if path.endswith(file)]
        assert list(dict.fromkeys(tried)) == ["dead", "good"]


@pytest.mark.parametrize(
    ("name", "torchvisions", "folder", "label_key"),
    [
        ("cifar10", "CIFAR10", "cifar-10-batches-py", "labels"),
        ("cifar100", "CIFAR100", "cifar-100-python", "fine_labels"),
    ],
)
def test_cifar_batches_become_channels_first_images(
    name, torchvisions, folder, label_key, server, monkeypatch, tmp_path
):
    import torchvision

    theirs = getattr(torchvision.datasets, torchvisions)
    members = cifar_members(label_key)
    meta = python2_pickle({theirs.meta["key"]: [f"class {c}" for c in range(10)]})
    checksums = [[batch, md5(content)] for batch, content in members.items()]
    monkeypatch.setattr(theirs, "train_list", checksums[:2])
    monkeypatch.setattr(theirs, "test_list", checksums[2:])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(meta)})
    archive = tar_gz(folder, {**members, theirs.meta["filename"]: meta})
    point_to(server, name, {theirs.filename: archive}, monkeypatch)
    source = SOURCES.parse({"name": name, "mirrors": [f"{server.address}/good/"]}, "data.source")
    source.download(tmp_path)
    raw = load_file(source.raw_file(tmp_path))
    batches = [random_images(5, (3, 32, 32), seed) for seed in range(3)]
    assert np.array_equal(raw["train_images"], np.concatenate([batches[0][0], batches[1][0]]))
    assert np.array_equal(raw["train_labels"], np.concatenate([batches[0][1], batches[1][1]]))
    assert np.array_equal(raw["test_images"], batches[2][0])
    prepare(data(source={"name": name}), tmp_path, tmp_path / "dataset.safetensors")
    dataset = load(tmp_path / "dataset.safetensors")
    assert (dataset.shape, dataset.classes) == ((3, 32, 32), source.format.classes)


def test_emnist_is_the_balanced_split_with_its_images_upright(server, monkeypatch, tmp_path):
    point_to(server, "emnist", {"gzip.zip": emnist_archive()}, monkeypatch)
    source = SOURCES.parse({"name": "emnist", "mirrors": [f"{server.address}/good/"]}, "data.source")
    source.download(tmp_path)
    raw = load_file(source.raw_file(tmp_path))
    for seed, (split, count) in enumerate(FEW_EMNIST.items()):
        images, labels = random_images(count, (28, 28), seed)
        assert np.array_equal(raw[f"{split}_images"], images[:, None])
        assert np.array_equal(raw[f"{split}_labels"], labels.astype(np.int64))
    prepare(data(source={"name": "emnist"}, validation_fraction=0.2), tmp_path, tmp_path / "dataset.safetensors")
    assert load(tmp_path / "dataset.safetensors").classes == 47


def test_a_mirror_that_falls_silent_is_left(server, monkeypatch, tmp_path):
    point_to(server, "mnist", mnist_files(), monkeypatch)
    monkeypatch.setattr("pipeline.data.sources.fetching.STALLED_AFTER", 0.2)
    mirrors = [f"{server.address}/stalled/", f"{server.address}/good/"]
    SOURCES.parse({"name": "mnist", "mirrors": mirrors}, "data.source").download(tmp_path)
    assert {path.name for path in (tmp_path / "mnist").iterdir()} == set(server.files)
    assert not server.outwaited


def test_a_connection_that_is_cut_is_taken_up_where_it_broke_off(server, monkeypatch, tmp_path):
    files = mnist_files()
    point_to(server, "mnist", files, monkeypatch)
    SOURCES.parse({"name": "mnist", "mirrors": [f"{server.address}/resuming/"]}, "data.source").download(tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mnist").iterdir()} == files
    pieces = {name: -(-len(content) // SHORT) for name, content in files.items()}
    assert max(pieces.values()) > 2
    asked = [path.rpartition("/")[2] for path in server.requested]
    assert {name: asked.count(name) for name in files} == pieces


def test_a_page_instead_of_an_archive_is_named_and_the_next_mirror_taken(server, monkeypatch, tmp_path, capsys):
    point_to(server, "mnist", mnist_files(), monkeypatch)
    mirrors = [f"{server.address}/page/", f"{server.address}/good/"]
    SOURCES.parse({"name": "mnist", "mirrors": mirrors}, "data.source").download(tmp_path)
    assert {path.name for path in (tmp_path / "mnist").iterdir()} == set(server.files)
    assert capsys.readouterr().err.count("mnist: an HTML page with the md5 checksum ") == len(server.files)
    with pytest.raises(UserError, match=r"/page/train-images-idx3-ubyte\.gz: an HTML page"):
        SOURCES.parse({"name": "mnist", "mirrors": mirrors[:1]}, "data.source").download(tmp_path / "elsewhere")


@pytest.mark.parametrize("written", ["{}", "file://{}/", "archives"])
def test_a_folder_takes_the_place_of_a_mirror(written, server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    point_to(server, "mnist", mnist_files(), monkeypatch)
    folder = tmp_path / "archives"
    folder.mkdir()
    for name, content in server.files.items():
        (folder / name).write_bytes(content)
    SOURCES.parse({"name": "mnist", "mirrors": [written.format(folder)]}, "data.source").download(tmp_path / "raw")
    assert server.requested == []
    assert len(load_file(tmp_path / "raw" / "mnist.safetensors")["test_labels"]) == FEW["t10k"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == server.files


def test_a_second_download_fetches_nothing_and_gives_the_same_bytes(mnist, server, tmp_path):
    mnist.download(tmp_path)
    first = mnist.raw_file(tmp_path).read_bytes()
    server.requested.clear()
    mnist.raw_file(tmp_path).write_bytes(first[:-7])
    mnist.download(tmp_path)
    assert server.requested == []
    assert mnist.raw_file(tmp_path).read_bytes() == first


def test_an_interrupted_download_goes_on_with_the_missing_files(mnist, server, tmp_path):
    train_images, train_labels, test_images, test_labels = server.files
    server.cut = test_images
    with pytest.raises(UserError, match=test_images):
        mnist.download(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted([train_images, train_labels])
    server.cut = ""
    server.requested.clear()
    mnist.download(tmp_path)
    assert server.fetched() == {test_images, test_labels}
    assert len(load_file(mnist.raw_file(tmp_path))["test_labels"]) == FEW["t10k"]


@pytest.mark.parametrize("leftover", ["train-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz.part"])
def test_a_killed_download_leaves_nothing_that_is_taken_for_whole(leftover, mnist, server, tmp_path):
    half = server.files["train-images-idx3-ubyte.gz"][:100]
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / leftover).write_bytes(half)
    mnist.download(tmp_path)
    assert {path.name for path in (tmp_path / "mnist").iterdir()} == set(server.files)
    assert len(load_file(mnist.raw_file(tmp_path))["train_labels"]) == FEW["train"]


def test_a_wrong_checksum_is_refused(mnist, server, tmp_path):
    name = "train-labels-idx1-ubyte.gz"
    expected = mnist.archives[name]
    server.files[name] = idx(np.zeros(FEW["train"], np.uint8))
    with pytest.raises(UserError, match=f"{name} with the md5 checksum {expected}") as error:
        mnist.download(tmp_path)
    assert f"{server.address}/good/{name}: " in str(error.value)
    assert not (tmp_path / "mnist" / name).exists()
    assert not mnist.raw_file(tmp_path).exists()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "emnist", "cifar10", "cifar100"])
def test_without_a_network_one_error_names_every_mirror_and_digits(name, monkeypatch, tmp_path):
    closed = ("http://127.0.0.1:9/first", "http://127.0.0.1:9/second/")
    monkeypatch.setattr(SOURCES[name], "public_mirrors", closed[1:])
    source = SOURCES.parse({"name": name, "mirrors": list(closed[:1])}, "data.source")
    with pytest.raises(UserError) as error:
        source.download(tmp_path)
    message = str(error.value)
    archive = next(iter(source.archives))
    assert message.startswith(f"data.source.name: {name}: ")
    assert f"http://127.0.0.1:9/first/{archive}: <urlopen error" in message
    assert f"http://127.0.0.1:9/second/{archive}: <urlopen error" in message
    assert "data.source.name: digits works offline" in message


def test_a_torchvision_that_cannot_be_imported_is_a_user_error(mnist, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=r"needs a torchvision that matches torch .* digits works without it"):
        mnist.download(tmp_path)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_on_a_terminal_and_a_line_a_file_elsewhere(terminal, mnist, server, monkeypatch, tmp_path):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        mnist.download(tmp_path)
    lines = [f"mnist: fetching {server.address}/good/{name}" for name in server.files]
    if terminal:
        assert screen.getvalue().count("100%|") == len(server.files)
        assert "B/s]" in screen.getvalue()
        assert all(line in screen.getvalue() for line in lines)
    else:
        assert screen.getvalue().splitlines() == lines


def test_our_checksums_and_mirrors_are_those_of_torchvision():
    from torchvision import datasets

    for source, theirs in [(SOURCES["mnist"], datasets.MNIST), (SOURCES["fashion_mnist"], datasets.FashionMNIST)]:
        assert list(source.archives.items()) == theirs.resources
        assert list(source.public_mirrors) == theirs.mirrors
        assert source.torchvision_class == theirs.__name__
    for source, theirs in [(SOURCES["cifar10"], datasets.CIFAR10), (SOURCES["cifar100"], datasets.CIFAR100)]:
        assert source.archives == {theirs.filename: theirs.tgz_md5}
        assert [mirror + theirs.filename for mirror in source.public_mirrors] == [theirs.url]
        assert source.torchvision_class == theirs.__name__
    emnist = SOURCES["emnist"]
    assert emnist.archives == {"gzip.zip": datasets.EMNIST.md5}
    assert [f"{mirror}gzip.zip" for mirror in emnist.public_mirrors] == [datasets.EMNIST.url]
    assert emnist.format.classes == len(datasets.EMNIST.classes_split_dict["balanced"])
    compared = ["cifar10", "cifar100", "emnist", "fashion_mnist", "mnist"]
    assert [name for name in SOURCES.names if issubclass(SOURCES[name], Downloaded)] == compared


def test_a_source_with_its_own_test_part_keeps_it_in_order(mnist, tmp_path):
    mnist.download(tmp_path)
    prepare(data(source=mnist, validation_fraction=0.25), tmp_path, tmp_path / "dataset.safetensors")
    dataset = load(tmp_path / "dataset.safetensors")
    assert [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)] == [30, 10, FEW["t10k"]]
    images, labels = random_images(FEW["t10k"], (28, 28), seed=1)
    assert torch.equal(dataset.test.inputs, mnist.format.pixels.normalise(torch.from_numpy(images)[:, None]))
    assert torch.equal(dataset.test.labels, torch.from_numpy(labels).long())
