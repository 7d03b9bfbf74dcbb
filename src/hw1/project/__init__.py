"""A folder of the user's own: its modules, its settings, its results. No torch."""

from hw1.project.folder import enter, importable, is_project, is_signed
from hw1.project.start import start

__all__ = ["enter", "importable", "is_project", "is_signed", "start"]
