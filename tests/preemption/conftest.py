"""Records of the tests here are signed, as those of commands are."""

import pytest

from hw1.records import make_key


@pytest.fixture(autouse=True, scope="session")
def key():
    make_key()
