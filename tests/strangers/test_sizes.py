"""Sizes that a file claims: each takes memory or time the naive way, and one line in ours. See docs/bounds.md."""

import gzip
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from hw1.bounds import ALL, DEPTH, Bound, special
from hw1.data import Arrays, Function, ImageFolder, Table
from hw1.data.source import MNIST, fetch_idx
from hw1.records import DamagedError
from hw1.runs import Run
from hw1.settings import ConfigError
from hw1.settings.stored_yaml import from_yaml
from hw1.stored_json import from_json
from hw1.tensor_files import refuse_claims
from hw1.training.checkpoint import resume_from
from hw1.training.weights_file import tensors_of
from made_runs import make_run


def within(mebibytes, code, *words):
    """Run code in a child that may take so much address space beyond what it has with torch's imports."""
    limited = (
        "import resource, sys\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (size + {mebibytes} * 2**20,) * 2)\n"
    )
    imports, _, rest = code.partition("#\n")
    return subprocess.run(
        [sys.executable, "-c", imports + limited + rest, *map(str, words)], capture_output=True, text=True, check=False
    )


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def png(file, width, height):
    """A black PNG of a bit a pixel, of which zlib leaves a thousandth."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer, packed = zlib.compressobj(9), b""
    row = bytes(1 + (width + 7) // 8)
    for _ in range(height):
        packed += packer.compress(row)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packed += packer.flush()
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def image_folder(root, make):
    for split in ("train", "test"):
        folder = root / "mine" / split / "a"
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "0.png")
    make(root / "mine" / "train" / "a" / "bad.png")
    return ImageFolder(root, "mine", size=4, channels=3)


def test_a_bound_is_raised_by_its_variable(monkeypatch):
    one = Bound("HW1_MAX_ONE", 10, "things")
    assert one.problem(10) == ""
    assert one.problem(11) == "got 11 things, expected at most 10: set HW1_MAX_ONE=11 if that is meant"
    monkeypatch.setenv("HW1_MAX_ONE", "1_000")
    assert one.problem(1000) == "" and one.problem(1001) and one.problem(500, most=20) == ""
    for wrong in ("many", "0", "-3", "1.5"):
        monkeypatch.setenv("HW1_MAX_ONE", wrong)
        with pytest.raises(ValueError, match=r"HW1_MAX_ONE: got .*, expected a positive integer"):
            one.problem(1)
    assert len({bound.variable for bound in ALL}) == len(ALL)


def laughs(deep):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*lines, *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, deep))])


def test_aliases_are_counted_as_if_written_out():
    naive = yaml.safe_load(laughs(5))  # a deep copy, a dump or JSON of it would write all of it out
    assert len(json.dumps(naive)) > 5 * 10**5 > 1000 * len(laughs(5)) / 2
    began = time.process_time()
    with pytest.raises(
        ValueError, match=r"^got more than 100,000 values of YAML, aliases written out: set HW1_MAX_YAML_NODES to"
    ):
        from_yaml(laughs(40))
    assert time.process_time() - began < 1
    assert from_yaml("a: &x {p: 1}\nb: {<<: *x, q: 2}\nc: *x") == {"a": {"p": 1}, "b": {"p": 1, "q": 2}, "c": {"p": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 10_000 + "]" * 10_000, "nest"),
        ("a: " + "{a: " * 70 + "1" + "}" * 70, "got more than 64 levels of nested values"),
        ("a: &a [*a]", r"got the alias \*a, .*\(line 1\)"),
        ("a: 1\nb: 2\na: 3", r"got the key 'a' twice, expected each once \(line 3\)"),
        ("a: !!python/object/apply:os.system [ls]", "got the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !mine 1", "got the tag !mine"),
        ("a: " + "9" * 5000, "got an integer of 5000 digits"),
        ("a: 0x" + "f" * 50, "got an integer of 52 digits"),
        ("a: " + "1:" * 30 + "1", "got an integer of 61 digits"),
        ('a: ! "0x' + "f" * 50 + '"', "got an integer of 52 digits"),
        ("? [a]\n: 1", "got a key that is no text"),
        ("a: 1\n---\nb: 1", "got a second document"),
        ("a: [1", r"got no YAML \(line"),
        ("a: \x00", "got no YAML"),
    ],
    ids=lambda value: value[:12],
)
def test_yaml_that_is_refused(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        from_yaml(text)
    assert "\n" not in str(caught.value)


def test_yaml_means_what_it_means_to_omegaconf():
    text = "a: 1e-3\nb: 2020-01-01\nc: on\nd: .inf\ne: 0x10\nf: '1'\ng: 1_000\nh: ~\ni: 1.5e3\nj: [1, 2.]"
    from omegaconf import OmegaConf

    assert from_yaml(text) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000 + "]" * 100_000, "deep|levels"),
        ("[" * 100 + "]" * 100, f"got more than {DEPTH.default} levels"),
        ("1" * 5000, "got an integer of 5000 digits"),
        ('{"a": 99999999999999999999999}', "got an integer of 23 digits"),
        ('{"a": 1, "a": 2}', "got the key 'a' twice"),
    ],
    ids=lambda value: value[:12],
)
def test_json_that_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        from_json(text)
    assert from_json("[18446744073709551615, 1e400, NaN]")[0] == 2**64 - 1


def stored_in(folder, settings):
    """A run of an earlier version, whose settings stand in config.yaml alone."""
    (folder / "config.yaml").write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return Run(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replicas": 10**9}, "replicas: got 1,000,000,000 members, expected at most 10,000: set HW1_MAX_MEMBERS=10"),
        ({"replicas": "x"}, "replicas: got 'x', expected a positive integer"),
        (
            {"trainer": {"threads": 10**6}},
            "trainer.threads: got 1,000,000 threads, expected at most 1,024: set HW1_MAX_TH",
        ),
        ({"seed": None}, "seed: got None, expected an integer of at least 0"),
        ({"name": "${name}"}, r"config\.yaml: name: got '\$\{name\}', which leads to itself"),
        ({"model": "${model}"}, "model: got .* which leads to itself"),
    ],
    ids=str,
)
def test_settings_that_no_run_can_have(change, said, tmp_path):
    folder, _ = make_run(tmp_path)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings |= {key: settings[key] | new if isinstance(new, dict) else new for key, new in change.items()}
    run = stored_in(folder, settings)
    with pytest.raises((DamagedError, ConfigError), match=said) as caught:
        run.settings  # noqa: B018
    assert str(caught.value).startswith(f"{folder / 'config.yaml'}: ") and "\n" not in str(caught.value)


def test_a_model_that_no_memory_holds(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError):  # naive: torch asks the system for 4 TB
        torch.nn.Linear(10**6, 10**6)
    folder, _ = make_run(tmp_path)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["model"]["hidden"] = [10**6, 10**6]
    said = r"^model\.hidden\.0: got 1,000,065,000,000 weights, expected at most 1,000,000,000: set HW1_MAX_WEIGHTS="
    began = peak()
    with pytest.raises(ConfigError, match=said):
        stored_in(folder, settings).nets()
    assert peak() - began < 2**29
    settings["model"]["hidden"] = [1] * 1000  # too many layers
    monkeypatch.setenv("HW1_MAX_TENSORS", "1000")
    with pytest.raises(ConfigError, match=r"^model.*: got more than 1,000 tensors of one model"):
        stored_in(folder, settings).nets()


@pytest.mark.slow
def test_pixels_the_naive_way(tmp_path):
    png(tmp_path / "bomb.png", 13_000, 13_000)
    assert (tmp_path / "bomb.png").stat().st_size < 2**18
    code = (
        "import sys\nfrom PIL import Image\n#\nImage.MAX_IMAGE_PIXELS = None\nImage.open(sys.argv[1]).convert('RGB')\n"
    )
    assert "MemoryError" in within(512, code, tmp_path / "bomb.png").stderr


@pytest.mark.parametrize("side", [13_000, 30_000])
def test_pixels_are_counted_before_they_are_decoded(side, tmp_path, monkeypatch):
    folder = image_folder(tmp_path, lambda file: png(file, side, side))
    began = peak()
    with pytest.raises(ValueError, match=rf"bad\.png: got {side**2:,} pixels, expected at most 89,478,485: set HW1_"):
        folder.prepare()
    assert peak() - began < 2**27 and Image.MAX_IMAGE_PIXELS == 89_478_485


def test_more_pixels_are_read_where_that_is_meant(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setenv("HW1_MAX_IMAGE_PIXELS", "10000")
    folder = image_folder(tmp_path, lambda file: png(file, 100, 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder.load().train_x.shape == (2, 3, 4, 4)
    monkeypatch.setenv("HW1_MAX_IMAGE_PIXELS", "9999")
    with pytest.raises(ValueError, match=r"bad\.png: got 10,000 pixels, expected at most 9,999"):
        image_folder(tmp_path / "b", lambda file: png(file, 100, 100)).prepare()


def test_special_files_among_images(tmp_path):
    assert special(os.stat(os.devnull).st_mode) == "a device"
    with pytest.raises(ValueError, match=r"folder: .*bad\.png: got a pipe, expected a file; remove it$"):
        image_folder(tmp_path / "a", os.mkfifo).prepare()  # naive: open() waits for a writer, for ever
    with pytest.raises(ValueError, match=r"folder: .*bad\.png: got a device, expected a file; remove it$"):
        image_folder(tmp_path / "b", lambda file: file.symlink_to("/dev/zero")).prepare()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(hello) print\nshowpage\n%%EOF\n"


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for once a process
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(OSError):
        Image.open(tmp_path / "a.png").load()
    assert (tmp_path / "started").exists()  # naive
    (tmp_path / "started").unlink()
    with pytest.raises(ValueError, match=r"folder: .*bad\.png cannot be read as an image; replace or delete it$"):
        image_folder(tmp_path, lambda file: file.write_bytes(EPS)).prepare()
    assert not (tmp_path / "started").exists()


def test_a_header_of_safetensors(tmp_path):
    file = tmp_path / "weights.safetensors"
    with file.open("wb") as opened:  # sparse: what it says of itself is enough
        opened.write(struct.pack("<Q", 90_000_000) + b"{")
        opened.truncate(100_000_000)
    with pytest.raises(ConfigError, match="got 90,000,000 bytes of safetensors header, expected at most 8,388,608"):
        tensors_of(file)
    save_file({f"layer.{i}": torch.zeros(1) for i in range(5000)}, file)
    refuse_claims(file)
    assert len(tensors_of(file)) == 5000


@pytest.mark.slow
def test_a_header_of_safetensors_the_naive_way(tmp_path):
    file = tmp_path / "weights.safetensors"
    parts = [f'"{i:07d}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(400_000)]
    header = ("{" + ",".join(parts) + "}").encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    code = "import sys\nfrom safetensors.torch import load_file\n#\nload_file(sys.argv[1])\n"
    assert within(200, code, file).returncode != 0  # 26 MB of header
    with pytest.raises(ConfigError, match="bytes of safetensors header"):
        tensors_of(file)


def inflating(file, mebibytes):
    """A checkpoint of torch.save, its storage packed: zeros become a thousandth."""
    whole = file.with_suffix(".whole")
    torch.save({"state_dict": {"w": torch.zeros(mebibytes * 2**18)}, "epoch": 0, "global_step": 1}, whole)
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        for entry in before.infolist():
            after.writestr(entry.filename, before.read(entry))
    whole.unlink()


def test_a_checkpoint_that_inflates(tmp_path):
    file = tmp_path / "last.ckpt"
    inflating(file, 16)
    assert file.stat().st_size < 2**17
    assert torch.load(file, weights_only=True)["state_dict"]["w"].numel() == 2**22  # naive: read as it says
    with pytest.raises(ConfigError, match=r"last\.ckpt cannot be read \(got the compressed entry .*expected entries"):
        resume_from(file)
    with pytest.raises(ConfigError, match="got the compressed entry"):
        tensors_of(file)


def test_entries_that_overlap(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(1000)}, file)
    refuse_claims(file)
    content = file.read_bytes()
    at = content.index(b"PK\x01\x02")
    for place in range(at, len(content) - 4):
        if content[place : place + 4] == b"PK\x01\x02":  # the sizes in the archive's list of entries
            content = content[: place + 20] + struct.pack("<II", 10**9, 10**9) + content[place + 28 :]
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"got entries of .* bytes in all, expected no more than the file's"):
        tensors_of(file)


def sparse_idx(root, number):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in MNIST.md5:
        with (folder / name.removesuffix(".gz")).open("wb") as file:
            images = "idx3" in name
            file.write(struct.pack(">IIII", 2051, number, 28, 28) if images else struct.pack(">II", 2049, number))
            file.truncate((16 + 784 * number) if images else 8 + number)


def test_images_that_no_memory_holds(tmp_path, monkeypatch):
    sparse_idx(tmp_path / "a", 100)
    fetch_idx(MNIST, tmp_path / "a")
    sparse_idx(tmp_path / "b", 5_000_000)  # 16 bytes on the disk
    monkeypatch.setenv("HW1_MAX_DATA_BYTES", str(2**30))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: got 23,520,000,096 bytes of data in memory, expec"):
        fetch_idx(MNIST, tmp_path / "b")


def test_what_is_free_is_the_bound_of_data(tmp_path, monkeypatch):
    monkeypatch.setattr("hw1.memory.free_memory", lambda: 2**20)
    with pytest.raises(ValueError, match=r"points: got 3,200,000 bytes of data in memory, expected at most 1,048,576"):
        Function("sin_2", [0, 1], points=100_000, noise=0, noise_seed=0, test_points=10)
    Function("sin_2", [0, 1], points=1000, noise=0, noise_seed=0, test_points=10)


def arrays(root, suffix="npy", **others):
    names = {part: f"{part}.{suffix}" for part in ("train_x", "train_y", "test_x", "test_y")}
    return Arrays(root, **names, **{"kind": "classes", "classes": 2, "mmap": False, **others})


def test_arrays_that_no_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("HW1_MAX_DATA_BYTES", str(2**24))
    for part in ("train_x", "train_y", "test_x", "test_y"):
        np.save(tmp_path / f"{part}.npy", np.zeros((4, 3) if part.endswith("x") else 4, dtype=np.int64))
        np.savez_compressed(tmp_path / f"{part}.npz", np.zeros(1), **{part: np.zeros((2**21, 2))})
    assert len(arrays(tmp_path).load().train_x) == 4
    assert (tmp_path / "train_x.npz").stat().st_size < 2**17
    with pytest.raises(ValueError, match=r"train_x: .*train_x\.npz: got 33,554,560 bytes of data in memory"):
        arrays(tmp_path, "npz")
    np.lib.format.open_memmap(tmp_path / "train_x.npy", "w+", np.float32, (10**7, 3))  # sparse
    np.lib.format.open_memmap(tmp_path / "train_y.npy", "w+", np.uint8, (10**7,))
    with pytest.raises(ValueError, match=r"train_.: .*bytes of data in memory.* mmap=true, which leaves inputs on"):
        arrays(tmp_path).load()
    content = (tmp_path / "test_x.npy").read_bytes()
    (tmp_path / "test_x.npy").write_bytes(content.replace(b"(4, 3)", b"(4, 9)"))
    with pytest.raises(ValueError, match=r"test_x: .*cannot be read as an array"):
        arrays(tmp_path)
    os.unlink(tmp_path / "test_x.npy")
    os.mkfifo(tmp_path / "test_x.npy")
    with pytest.raises(ValueError, match=r"test_x: got .*, which is a pipe, expected a file"):
        arrays(tmp_path)


def table(root, name="a.csv"):
    return Table(root, name, "y", None, "values", None, None, 0.5, 0, False)


def test_tables_that_no_memory_holds(tmp_path, monkeypatch):
    file = tmp_path / "a.csv"
    file.write_text("x,y\n1,2\n3,4\n")
    assert table(tmp_path).load().train_x.shape == (1, 1)
    file.write_text(",".join(map(str, range(20_000))) + ",y\n")
    with pytest.raises(ValueError, match=r"file: .*a\.csv: got 20,001 columns of a table, expected at most 10,000"):
        table(tmp_path)
    file.write_text('"' + "x" * 200_000 + '",y\n1,2\n')  # naive: csv.Error, which is no ValueError
    with pytest.raises(ValueError, match=r"file: .*a\.csv cannot be read as CSV \(field larger"):
        table(tmp_path)
    file.write_text("x,y\n1,2\n3,4\n" + "5,6\n" * 10_000)
    monkeypatch.setenv("HW1_MAX_DATA_BYTES", "100_000")
    with pytest.raises(ValueError, match=r"file: .*a\.csv: got 320,\d+ bytes of data in memory, expected at most 100,"):
        table(tmp_path).load()


def test_parquet_that_inflates(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow", reason="reading parquet needs pyarrow")
    import pyarrow.parquet as pq

    zeros = pa.array(np.zeros(10**6))
    pq.write_table(pa.table({"x": zeros, "y": zeros}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 2**16
    monkeypatch.setenv("HW1_MAX_DATA_BYTES", str(2**20))
    with pytest.raises(ValueError, match=r"a\.parquet: got .* bytes of data in memory"):
        table(tmp_path, "a.parquet").load()


def test_a_packed_table_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(gzip.compress(b"x,y\n" + b"1,2\n" * 10**6))
    with pytest.raises(ValueError, match=r"file: .*a\.csv cannot be read as CSV"):
        table(tmp_path)


def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    (tmp_path / "a.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConfigError, match="weights: got"):
        tensors_of(tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()
