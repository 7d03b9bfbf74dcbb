"""Launchers of hw1's own stand in the place of those that Hydra's plugins bring by the same name.

Hydra reads a file of conf/ first, but then takes what a plugin registered by its name for a schema that it must fit.

Hydra imports this file at every start: it stays free of torch.
"""

from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hw1.settings.conf import options_of, shipped


class Presets(SearchPathPlugin):
    """Asked when all plugins have registered what they bring."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Forget what has the name of an option in conf/hydra/launcher, where hw1's settings are composed."""
        if not any(
            one.provider == "main" and str(one.path).removeprefix("file://") == str(shipped())
            for one in search_path.get_path()
        ):
            return
        group: dict[str, Any] = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
        for name in options_of(shipped() / "hydra" / "launcher"):
            group.pop(f"{name}.yaml", None)
