"""`hw1 clean` and `hw1 export`: many runs at once, picked by a path and filters."""

import argparse
import sys
from pathlib import Path

from hw1.typed import program


def path_and_filters(words: list[str]) -> tuple[Path, list[str]]:
    """The path among words, by default that of all results, and the filters.

    Raises:
        ConfigError: there are two paths, or none stands there.
    """
    from hw1.settings import ConfigError

    paths = [word for word in words if "=" not in word or Path(word).exists()]
    if len(paths) > 1:
        raise ConfigError(f"path: got {' and '.join(paths)}, expected one, then filters as status=failed")
    if paths and not Path(paths[0]).exists():
        raise ConfigError(f"{paths[0]}: no such folder; expected a run, a sweep, an experiment or a folder of them")
    filters = [word for word in words if word not in paths]
    return Path(paths[0]) if paths else all_results(), filters


def all_results() -> Path:
    """The folder of all results of the current one, as trainings have it by default."""
    return Path.cwd() / "multirun"


def clean_up(chosen: argparse.Namespace) -> int:
    """Say what would be freed, ask, and free it; 1 if nothing was removed although there was something."""
    from hw1.report.clean import Level, lines, offers, plan
    from hw1.report.removal import carry_out
    from hw1.terminal import agreed, size
    from hw1.words import printable

    path, filters = path_and_filters(chosen.words)
    level = Level(chosen.checkpoints, chosen.snapshots, chosen.weights, chosen.results)
    made = plan(path, filters, level)
    for line in made.left:
        print(printable(line), file=sys.stderr)
    for line in lines(made, path):
        print(printable(line))
    if not made.removals:
        print(printable(f"{path}: nothing to remove"))
    if level.orphans:
        print("\n".join(offers(path, filters)) or "nor would anything else be freed")
    if not made.removals:
        return 0
    if not chosen.yes and not agreed("remove it?", "nothing was removed", "removes it without asking"):
        return 1
    freed, left = carry_out(made, lambda: plan(path, filters, level))
    for line in left:
        print(printable(line), file=sys.stderr)
    print(f"freed {size(freed)}")
    return 0


def export_runs(words: list[str], output: str | None) -> int:
    """Write all runs as one table: as CSV, and as Parquet where something writes it."""
    from hw1.cells import guarded_table
    from hw1.report.export import CSV, NO_PARQUET, PARQUET, export, tidy, writes_parquet
    from hw1.settings import ConfigError
    from hw1.words import count, printable

    path, filters = path_and_filters(words)
    table = tidy(path, filters)
    if not len(table):
        raise ConfigError(f"{path}: got no such run, expected some; {program()} list shows what there is")
    if output == "-":
        guarded_table(table).to_csv(sys.stdout, index=False)
        return 0
    inside = path.absolute().parent  # beside runs/ and sweeps/: what stands within those is whole
    folder = inside.parent if inside.name in ("runs", "sweeps") else path
    files = [Path(output)] if output else [folder / f"export{CSV}"]
    if output is None and writes_parquet():
        files.append(folder / f"export{PARQUET}")
    for file in files:
        export(table, file)
        print(printable(f"{file}: {count(len(table), 'row')}, {count(len(table.columns), 'column')}"))
    if output is None and not writes_parquet():
        print(f"only CSV: {NO_PARQUET}", file=sys.stderr)
    return 0
