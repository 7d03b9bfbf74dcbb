"""What a run is: its settings, checked once, its key and its seeds. No torch."""

from hw1.settings.identity import ConfigError, run_key, run_seed
from hw1.settings.run_settings import Objective, RunSettings

__all__ = ["ConfigError", "Objective", "RunSettings", "run_key", "run_seed"]
