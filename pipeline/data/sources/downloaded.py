"""Sources known to torchvision: archives from mirrors, verified by md5. torchvision is imported when it is needed."""

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.data.dataset import write_tensors
from pipeline.data.sources import SOURCES, Format, Source
from pipeline.data.sources.fetching import FetchError, fetch, located


def _readable(mirror: str) -> str:
    scheme, separator, _ = mirror.partition("://")
    if separator and scheme not in ("http", "https", "file"):
        raise ValueError("should be an http, https or file address, or the path of a folder")
    return mirror


class Downloaded(Source):
    """A source known to torchvision: archives from mirrors, verified by md5 and read by its data set class."""

    mirrors: tuple[Annotated[str, Field(min_length=1), AfterValidator(_readable)], ...] = Field(
        default=(),
        strict=False,
        description="folders of the archives, tried before the public ones: http(s) or file addresses, or paths",
    )
    public_mirrors: ClassVar[tuple[str, ...]]
    archives: ClassVar[dict[str, str]]
    torchvision_class: ClassVar[str]
    torchvision_arguments: ClassVar[dict[str, str]] = {}
    extracted_to: ClassVar[str] = "."

    def download(self, folder: Path) -> None:
        """Fetch the archives that are missing or damaged, then write the raw file; see :meth:`Source.download`.

        Verified archives stay in ``folder/<name>/``: an interrupted download resumes with the first missing one.
        """
        datasets = self._torchvision_datasets()
        (folder / self.name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as root:
            extracted = Path(root, self.extracted_to)
            extracted.mkdir(parents=True, exist_ok=True)
            for name, md5 in self.archives.items():
                archive = folder / self.name / name
                if not datasets.utils.check_integrity(archive, md5):
                    self._fetch(archive, md5)
                self._extract(datasets.utils, archive, extracted)
            write_tensors(self.raw_file(folder), self._read(getattr(datasets, self.torchvision_class), root))

    def _torchvision_datasets(self) -> Any:
        try:
            import torchvision.datasets
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError(
                f"data.source.name: {self.name} needs a torchvision that matches torch {torch.__version__} ({error}); "
                "data.source.name: digits works without it"
            ) from None
        return torchvision.datasets

    def _fetch(self, archive: Path, md5: str) -> None:
        """Download one archive from the first mirror that delivers it with the right checksum."""
        failures = []
        for mirror in (*self.mirrors, *self.public_mirrors):
            location = located(mirror, archive.name)
            print(f"{self.name}: fetching {location}", file=sys.stderr, flush=True)
            try:
                return fetch(location, archive, md5)
            except FetchError as error:
                failures.append(f"  {location}: {error}")
                print(f"{self.name}: {error}", file=sys.stderr, flush=True)
        raise UserError(
            f"data.source.name: {self.name}: no mirror delivered {archive.name} with the md5 checksum {md5}\n"
            + "\n".join(failures)
            + "\nA rerun goes on with the files still missing; data.source.name: digits works offline"
        )

    def _extract(self, utils: Any, archive: Path, folder: Path) -> None:
        """Unpack ``archive`` into ``folder``, where torchvision's class looks for the files."""
        utils.extract_archive(archive, folder)

    def _read(self, torchvision_class: Any, root: str) -> dict[str, Tensor]:
        tensors = {}
        for split in ("train", "test"):
            part = torchvision_class(root, train=split == "train", **self.torchvision_arguments)
            tensors[f"{split}_images"] = self._channels_first(torch.as_tensor(part.data)).contiguous()
            tensors[f"{split}_labels"] = torch.as_tensor(part.targets, dtype=torch.int64)
        return tensors

    def _channels_first(self, images: Tensor) -> Tensor:
        """Return torchvision's ``[N, H, W]`` or ``[N, H, W, C]`` as ``[N, C, H, W]``."""
        channels, height, width = self.format.shape
        return images.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


@SOURCES.register
class Mnist(Downloaded):
    """70,000 handwritten digits of 28 x 28 pixels, 10,000 of them for testing.

    Reference: LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 1998.
    """

    name: Literal["mnist"] = "mnist"
    formula: ClassVar[str] = "70,000 grey images of 28 x 28 pixels in 10 classes"
    reference: ClassVar[str] = "LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 1998"
    format: ClassVar[Format] = Format(shape=(1, 28, 28), classes=10, means=(0.1307,), deviations=(0.3081,))
    torchvision_class: ClassVar[str] = "MNIST"
    extracted_to: ClassVar[str] = "MNIST/raw"
    public_mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    archives: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }


@SOURCES.register
class FashionMnist(Downloaded):
    """70,000 pictures of clothes of 28 x 28 pixels, 10,000 of them for testing.

    Reference: Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747.
    """

    name: Literal["fashion_mnist"] = "fashion_mnist"
    formula: ClassVar[str] = "70,000 grey images of 28 x 28 pixels in 10 classes"
    reference: ClassVar[str] = "Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747"
    format: ClassVar[Format] = Format(shape=(1, 28, 28), classes=10, means=(0.2860,), deviations=(0.3530,))
    torchvision_class: ClassVar[str] = "FashionMNIST"
    extracted_to: ClassVar[str] = "FashionMNIST/raw"
    public_mirrors: ClassVar[tuple[str, ...]] = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    archives: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }


@SOURCES.register
class Cifar10(Downloaded):
    """60,000 colour photographs of 32 x 32 pixels in 10 classes, 10,000 of them for testing.

    Reference: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    name: Literal["cifar10"] = "cifar10"
    formula: ClassVar[str] = "60,000 colour images of 32 x 32 pixels in 10 classes"
    reference: ClassVar[str] = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
    format: ClassVar[Format] = Format(
        shape=(3, 32, 32), classes=10, means=(0.4914, 0.4822, 0.4465), deviations=(0.2470, 0.2435, 0.2616)
    )
    torchvision_class: ClassVar[str] = "CIFAR10"
    public_mirrors: ClassVar[tuple[str, ...]] = ("https://www.cs.toronto.edu/~kriz/",)
    archives: ClassVar[dict[str, str]] = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}


@SOURCES.register
class Cifar100(Downloaded):
    """60,000 colour photographs of 32 x 32 pixels in 100 classes (the fine labels), 10,000 of them for testing.

    Means and deviations are those used in public code; they have not been recomputed from the images.

    Reference: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    name: Literal["cifar100"] = "cifar100"
    formula: ClassVar[str] = "60,000 colour images of 32 x 32 pixels in 100 classes"
    reference: ClassVar[str] = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
    format: ClassVar[Format] = Format(
        shape=(3, 32, 32), classes=100, means=(0.5071, 0.4865, 0.4409), deviations=(0.2673, 0.2564, 0.2762)
    )
    torchvision_class: ClassVar[str] = "CIFAR100"
    public_mirrors: ClassVar[tuple[str, ...]] = ("https://www.cs.toronto.edu/~kriz/",)
    archives: ClassVar[dict[str, str]] = {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}


@SOURCES.register
class Emnist(Downloaded):
    """131,600 handwritten digits and letters of 28 x 28 pixels in 47 classes ("balanced"), 18,800 of them for testing.

    The files store every image transposed; here it is upright. The archive also holds five other splits (562 MB in
    all). Mean and deviation are those used in public code; they have not been recomputed from the images.

    Differs from: torchvision returns the transposed images.

    Reference: Cohen et al., EMNIST: an extension of MNIST to handwritten letters, arXiv:1702.05373.
    """

    name: Literal["emnist"] = "emnist"
    formula: ClassVar[str] = "131,600 grey images of 28 x 28 pixels in 47 classes"
    reference: ClassVar[str] = "Cohen et al., EMNIST: an extension of MNIST to handwritten letters, arXiv:1702.05373"
    format: ClassVar[Format] = Format(shape=(1, 28, 28), classes=47, means=(0.1751,), deviations=(0.3332,))
    torchvision_class: ClassVar[str] = "EMNIST"
    torchvision_arguments: ClassVar[dict[str, str]] = {"split": "balanced"}
    extracted_to: ClassVar[str] = "EMNIST/raw"
    public_mirrors: ClassVar[tuple[str, ...]] = ("https://biometrics.nist.gov/cs_links/EMNIST/",)
    archives: ClassVar[dict[str, str]] = {"gzip.zip": "58c8d27c78d21e728a6bc7b3cc06412e"}

    def _extract(self, utils: Any, archive: Path, folder: Path) -> None:
        """Unpack the four files of the balanced split."""
        with zipfile.ZipFile(archive) as whole:
            members = [name for name in whole.namelist() if "emnist-balanced-" in name and name.endswith(".gz")]
            whole.extractall(folder, members)
        for name in members:
            utils.extract_archive(folder / name, folder)

    def _channels_first(self, images: Tensor) -> Tensor:
        """Return torchvision's transposed ``[N, W, H]`` as ``[N, 1, H, W]``."""
        return super()._channels_first(images).mT
