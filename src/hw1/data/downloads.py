"""Whether data that are missing may be downloaded: not by a job, nor for somebody else's results. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

STRANGERS = "nothing is downloaded for somebody else's results"
JOBS = "a job downloads nothing: its command does, before it launches; is that folder seen from where the job runs?"

_why_not = ContextVar("why_nothing_is_downloaded", default="")


@contextlib.contextmanager
def nothing_downloaded(why: str = STRANGERS) -> Iterator[None]:
    """Sources of examples take what is there: no address is asked, and nothing is unpacked.

    Args:
        why: what is said where something is missing.
    """
    token = _why_not.set(why)
    try:
        yield
    finally:
        _why_not.reset(token)


def may_download() -> bool:
    """Whether an address may be asked for what is missing."""
    return not _why_not.get()


def why_not() -> str:
    """Why nothing may be downloaded; "" where it may."""
    return _why_not.get()
