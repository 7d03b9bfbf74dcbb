"""Data are where jobs look for them before any is launched: jobs download nothing, see `hw1.data.downloads`.

Hydra imports this file at every start: it stays free of torch.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hw1.runs import Run
from hw1.settings import ConfigError
from hw1.settings.construct import naming
from hw1.training.examples import examples_of
from hydra_plugins.hw1_sweeper.plan import Job


def fetch(jobs: Iterable[Job]) -> None:
    """Download what is missing of the data of finished runs that are to be measured.

    Those of runs that are to train have been loaded when they were checked. Somebody else's are not asked for.

    Raises:
        ConfigError: they are neither there nor to be had; one line for each distinct problem.
    """
    nodes = dict[str, dict[str, Any]]()
    for job in jobs:
        run = Run(job.folder, job.settings)
        if run.why_not_own:
            continue
        node = run.dataset_node()
        if node.get("root") and not Path(node["root"]).exists():  # as where it is measured
            node["root"] = None
        nodes.setdefault(json.dumps(node, sort_keys=True, default=str), node)
    problems: dict[str, None] = {}
    for node in nodes.values():
        try:
            with naming("dataset"):
                examples_of(node).prepare()
        except ConfigError as error:
            problems[str(error)] = None
    if problems:
        raise ConfigError("\n".join(problems))
