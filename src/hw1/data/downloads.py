"""Whether data that are missing may be downloaded: not for somebody else's results. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_nothing = ContextVar("nothing_downloaded", default=False)


@contextlib.contextmanager
def nothing_downloaded() -> Iterator[None]:
    """Sources of examples take what is there: no address is asked, and nothing is unpacked."""
    token = _nothing.set(True)
    try:
        yield
    finally:
        _nothing.reset(token)


def may_download() -> bool:
    """Whether an address may be asked for what is missing."""
    return not _nothing.get()
