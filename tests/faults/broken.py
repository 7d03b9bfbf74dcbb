"""A way to break hw1's writing, which the campaign must notice: else it would notice nothing."""

import contextlib
import sys


def in_place():
    """Files are written where they will stand, not beside it."""

    @contextlib.contextmanager
    def replacing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path

    _everywhere("replacing", replacing)


def _everywhere(name, function):
    """Replace a function of hw1.files in all modules that have imported it."""
    from hw1 import files

    before = getattr(files, name)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("hw1.", "hydra_plugins.")) and vars(module).get(name) is before:
            setattr(module, name, function)
