import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
import time

import pytest

from hw1.data import source
from hw1.data.source import IdxSet, choose_mnist_source, data_root, fetch_cifar10, fetch_idx, sha256

DEAD = "http://127.0.0.1:9/"  # the discard port: nothing listens


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(source, "MNIST", dataclasses.replace(source.MNIST, mirrors=(DEAD,)))
    monkeypatch.setattr(source, "CIFAR10_MIRROR", DEAD)


@pytest.fixture
def server(tmp_path):
    """(folder that is served, its URL)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def served_mnist(server, tmp_path, write_idx):
    """A tiny MNIST on the server, with its true hashes; (the set, the folder of the unpacked originals)."""
    folder, url = server
    raw = tmp_path / "original"
    write_idx(raw)
    hashes = {}
    for name in source.MNIST.md5:
        packed = gzip.compress((raw / name.removesuffix(".gz")).read_bytes())
        (folder / name).write_bytes(packed)
        hashes[name] = md5(packed)
    return IdxSet("MNIST", (DEAD, url), hashes), raw


def test_importing_it_imports_neither_torch_nor_pandas():
    code = "import sys, hw1.data.source; print([m for m in ('torch', 'torchvision', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_mirrors_and_hashes_are_torchvisions():
    from torchvision import datasets

    for ours, theirs in ((source.MNIST, datasets.MNIST), (source.FASHION_MNIST, datasets.FashionMNIST)):
        assert list(ours.mirrors) == theirs.mirrors
        assert list(ours.md5.items()) == theirs.resources
        assert ours.folder == theirs.__name__
    cifar = datasets.CIFAR10
    assert cifar.url == source.CIFAR10_MIRROR + source.CIFAR10_ARCHIVE
    assert (cifar.tgz_md5, cifar.base_folder) == (source.CIFAR10_MD5, source.CIFAR10_FOLDER)


def test_root_is_the_argument_else_the_variable_else_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root(None) == tmp_path / "variable"
    monkeypatch.delenv("HW1_DATA")
    assert data_root(None).name == "data"
    assert (data_root(None).parent / "conf" / "dataset").is_dir()


@pytest.mark.parametrize("asked", ["auto", "full"])
def test_files_that_are_there_are_taken(idx_root, asked, capsys):
    assert choose_mnist_source(idx_root, asked) == "full"
    assert capsys.readouterr().err == ""


def test_unknown_source():
    with pytest.raises(ValueError, match=r"^source: got 'ful', expected 'auto', 'full' or 'bundled'$"):
        choose_mnist_source(None, "ful")


@pytest.mark.parametrize("asked", ["auto", "full"])
@pytest.mark.parametrize("size", [1000, 3])
def test_a_truncated_file_is_an_error(idx_root, asked, size):
    path = idx_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError) as caught:
        choose_mnist_source(idx_root, asked)
    expected = "at least 16" if size == 3 else str(16 + 30 * 784)
    assert str(caught.value) == (
        f"root: {path} is truncated: got {size} bytes, expected {expected}; "
        "delete it and run again to download it, or set dataset.source=bundled"
    )


def test_a_broken_file_is_an_error_also_beside_missing_ones(idx_root, offline):
    raw = idx_root / "MNIST" / "raw"
    (raw / "train-images-idx3-ubyte").unlink()
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"<html>not today</html>")
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte is not an IDX file of labels"):
        choose_mnist_source(idx_root, "auto")


def test_too_long_and_unequal_counts(idx_root):
    raw = idx_root / "MNIST" / "raw"
    labels = raw / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="is too long: got 39 bytes, expected 38"):
        choose_mnist_source(idx_root, "full")
    labels.write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="holds 20 labels, expected one for each of 30 images"):
        choose_mnist_source(idx_root, "full")


def test_auto_without_a_network_warns_and_takes_the_bundled_digits(tmp_path, offline, capsys):
    start = time.monotonic()
    assert choose_mnist_source(tmp_path, "auto") == "bundled"
    assert time.monotonic() - start < 10
    warning = capsys.readouterr().err
    assert warning.count("\n") > 6
    assert warning.startswith("+--")
    for words in ("5,000", "127.0.0.1:9", "HW1_DATA", "dataset.root", "dataset.source=full"):
        assert words in warning


def test_full_without_a_network_is_an_error_of_one_line(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match=r"^root: .*127\.0\.0\.1:9.*dataset\.source=bundled$"):
        choose_mnist_source(tmp_path, "full")


def test_a_name_look_up_that_hangs_is_given_up(tmp_path, monkeypatch):
    answer = threading.Event()

    def hang(*args, **kwargs):
        answer.wait(60)
        raise OSError("at last, and in vain")

    monkeypatch.setattr(source, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr("socket.getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"no answer within 0\.3 s"):
        fetch_idx(source.MNIST, tmp_path)
    assert time.monotonic() - start < 30  # far below the look-up's minute
    answer.set()


def test_a_root_that_cannot_be_written_is_reported(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert choose_mnist_source(tmp_path / "file", "auto") == "bundled"
    said = capsys.readouterr().err.replace("|", " ")  # in a box, whose lines break where the path's length wants it
    assert "cannot be written to (Not a directory)" in " ".join(said.split())


def test_download_unpacks_the_files_and_leaves_no_half_ones(served_mnist, tmp_path):
    served, originals = served_mnist
    fetch_idx(served, tmp_path / "root")
    raw = tmp_path / "root" / "MNIST" / "raw"
    for name in served.md5:
        unpacked = name.removesuffix(".gz")
        assert (raw / unpacked).read_bytes() == (originals / unpacked).read_bytes()
    assert {path.name.removesuffix(".gz") for path in raw.iterdir()} == {path.name for path in originals.iterdir()}


def test_archives_that_are_there_need_no_network(served_mnist, server, tmp_path):
    served, _ = served_mnist
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in served.md5:
        (raw / name).write_bytes((server[0] / name).read_bytes())
    fetch_idx(dataclasses.replace(served, mirrors=(DEAD,)), tmp_path / "root")
    assert all(path.exists() for path in served.paths(tmp_path / "root"))


def test_a_download_with_the_wrong_hash_is_refused(served_mnist, server, tmp_path):
    served, _ = served_mnist
    (server[0] / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte is missing.*wrong hash"):
        fetch_idx(served, tmp_path / "root")
    left = [path.name for path in (tmp_path / "root" / "MNIST" / "raw").iterdir()]
    assert not [name for name in left if name.startswith("t10k-labels")]


def test_cifar10_archive_is_downloaded_and_unpacked(server, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"batch"))
    (server[0] / source.CIFAR10_ARCHIVE).write_bytes(buffer.getvalue())
    monkeypatch.setattr(source, "CIFAR10_MIRROR", server[1])
    monkeypatch.setattr(source, "CIFAR10_MD5", md5(buffer.getvalue()))
    fetch_cifar10(tmp_path / "root")
    assert (tmp_path / "root" / "cifar-10-batches-py" / "data_batch_1").read_bytes() == b"batch"
    assert len(list((tmp_path / "root").iterdir())) == 2  # the archive and the folder


def test_cifar10_without_a_network_names_what_would_do(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match=r"^root: no CIFAR-10 in .*cifar-10-python.tar.gz.*dataset\.root"):
        fetch_cifar10(tmp_path)


def test_sha256_of_one_file_and_of_two(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"abc")
    b.write_bytes(b"d")
    length = (3).to_bytes(8, "big")
    assert sha256([a]) == hashlib.sha256(length + b"abc").hexdigest()
    first = sha256([a, b])
    a.write_bytes(b"ab")
    b.write_bytes(b"cd")
    assert sha256([a, b]) != first  # the same bytes, cut elsewhere
