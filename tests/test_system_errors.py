"""What the system says of a file is one line with the file and, where there is one, the remedy."""

import errno
import logging.config
import os

import pytest

from hw1.explaining import explain
from hw1.files import write_text


def test_a_folder_where_a_file_is_written(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OSError) as met:
        write_text(tmp_path / "result.json", "{}")
    said = f"{tmp_path}/result.json: is a directory; a file is expected there; delete it and run the command again"
    assert explain(met.value) == said


def test_a_folder_where_the_log_is_written(tmp_path):
    """Python's logging says that it cannot configure a handler, and not why."""
    handler = {"class": "logging.FileHandler", "filename": str(tmp_path)}
    with pytest.raises(ValueError) as met:
        logging.config.dictConfig({"version": 1, "handlers": {"file": handler}, "root": {"handlers": ["file"]}})
    assert explain(met.value).startswith(f"{tmp_path}: is a directory; a file is expected there; delete it")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_does_not_write(number):
    said = explain(OSError(number, os.strerror(number), "/a/metrics.csv"))
    assert said.startswith("/a/metrics.csv: ") and said.endswith("run the command again, which goes on")


def test_others_name_the_file():
    assert explain(OSError(errno.EACCES, "Permission denied", "/a")) == "/a: permission denied"
    assert explain(OSError("no space")) == "OSError: no space"
