"""The user's own conf/ in Hydra's search path, before hw1's: what stands there stands above what hw1 brings.

Hydra imports this file at every start, of every application that is installed beside hw1: it stays free of torch, and
does nothing where another application's settings are composed.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hw1.settings.conf import project_conf, shipped


class ProjectConf(SearchPathPlugin):
    """Puts the project's conf/ before hw1's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it has put the application's own folder in its place, as `main`."""
        own = project_conf()
        ours = any(one.provider == "main" and one.path == str(shipped()) for one in search_path.get_path())
        if own is not None and ours:
            search_path.prepend("project", f"file://{own}", anchor="main")
