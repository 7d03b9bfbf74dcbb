"""Files of tensors, looked at before anything is read from them: what they claim is what they hold. No torch.

A safetensors file begins with a header of JSON, whose parsing takes 18 times its size; a file of torch.save is a zip
archive whose entries are stored as they are. One that inflates was made by something else.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from hw1.bounds import HEADER_BYTES, special


def refuse_claims(file: Path) -> None:
    """Refuse a file that claims more than it holds, or than it may.

    Whether it is whole is for its reader to say.

    Raises:
        OSError: it is not there, or not to be read.
        ValueError: it is such a one, or no file; says what, without its name.
    """
    status = os.stat(file)
    if kind := special(status.st_mode):
        raise ValueError(f"got {kind}, expected a file")
    if file.suffix == ".safetensors":
        problem = _header(file)
    else:
        problem = _archive(file, status.st_size) if zipfile.is_zipfile(file) else ""
    if problem:
        raise ValueError(problem)


def _header(file: Path) -> str:
    with open(file, "rb") as opened:
        length = opened.read(8)
    return HEADER_BYTES.problem(struct.unpack("<Q", length)[0]) if len(length) == 8 else ""


def _archive(file: Path, size: int) -> str:
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return f"got no whole archive ({error})"
    if inflated := [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        return f"got the compressed entry {inflated[0].filename[:60]!r}, expected entries as torch.save stores them"
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        return f"got entries of {claimed:,} bytes in all, expected no more than the file's {size:,}"
    return ""
