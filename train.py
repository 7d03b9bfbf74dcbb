"""The command: `python train.py experiment=flatness_interp`. See `python train.py --help`."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

CHECKOUT = Path(__file__).resolve().parent


def run(config: Any) -> None:
    """One job of a sweep: train one run in the folder that the sweeper picked."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from hw1.command import fail, job_line
    from hw1.files import write_text
    from hw1.training.fit import fit
    from hw1.training.identity import ConfigError

    hydra = HydraConfig.get()
    if hydra.mode.name != "MULTIRUN":
        problem = "hydra.mode: got RUN, expected MULTIRUN: a run's folder and key are picked by the sweeper"
        fail(ConfigError(problem), full=False)
    folder = Path(hydra.runtime.output_dir)
    settings = OmegaConf.to_container(config, resolve=True)
    words = [word for word in hydra.overrides.task if not word.startswith("sweep=")]
    result = fit(settings, folder, words)
    parts = {"config": config, "hydra": OmegaConf.create({"hydra": hydra}), "overrides": hydra.overrides.task}
    for name, part in parts.items():  # what users of Hydra look for
        write_text(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(part))
    print(job_line(Path(config.sweep), folder, result), flush=True)


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a sweep as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Normalise the words, hand over to Hydra, and put every error into one line."""
    from hw1.command import fail, help_text, normalised, with_budget

    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(help_text(CHECKOUT / "conf"))
        return
    full = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    os.environ["HW1_CHECKOUT"] = str(CHECKOUT)
    signal.signal(signal.SIGTERM, interrupt)

    import hydra

    try:
        sys.argv[1:] = normalised(with_budget(words, CHECKOUT / "conf"))
        hydra.main(version_base="1.3", config_path=str(CHECKOUT / "conf"), config_name="train")(run)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        fail(error, full)


if __name__ == "__main__":
    main()
