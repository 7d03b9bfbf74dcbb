"""A folder of the user's own: its modules for a command, and how one begins."""

from hw1.project.folder import enter, hint, importable
from hw1.project.start import start
from hw1.trust.projects import is_project

__all__ = ["enter", "hint", "importable", "is_project", "start"]
