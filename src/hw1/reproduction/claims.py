"""docs/claims.md and .csv: what the reports concluded, and what finished sweeps say of it.

Each claim of docs/claims.yaml names an experiment, a statistic and a rule, and where two ways to compare are fair a
second statistic beside it; the file says also how often an experiment must have been run. The rules were written before
the runs that they judge, or the verdict is exploratory.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from hw1.cells import guarded, original
from hw1.files import replacing, write_text
from hw1.inside import inside
from hw1.reproduction.claims_page import COLUMNS, LEAST_SEEDS, MEASURED, page
from hw1.reproduction.finished import Finished, changing, command_of, finished, first_seed, short
from hw1.reproduction.results import experiment_of, read
from hw1.reproduction.statistic import statistic
from hw1.reproduction.verdicts import TO_RUN, Rule, both
from hw1.reproduction.wording import method, statistic_in_words
from hw1.settings import ConfigError
from hw1.settings.about import About, experiments
from hw1.studies.headlines import Headline


@dataclass(frozen=True)
class Command:
    """How an experiment is run for a claim.

    Attributes:
        experiment: its name.
        words: of the command, besides; as in a shell.
        seeds: how many seeds or replicas there must be.
        hours: how long it takes; None: as docs/results.csv or the experiment says.
    """

    experiment: str
    words: str = ""
    seeds: int = LEAST_SEEDS
    hours: float | None = None

    @property
    def text(self) -> str:
        """As a reader would type it."""
        return f"{command_of(self.experiment)} {self.words}".strip()

    @property
    def also(self) -> tuple[str, ...]:
        """The words that make it another training than the experiment as it stands."""
        return tuple(changing(shlex.split(self.words)))

    @property
    def first(self) -> int:
        """The lowest seed that may judge: its rule was written after runs of those below."""
        return first_seed(shlex.split(self.words))


class _Book:
    """The commands of docs/claims.yaml, their times, and what is finished of them."""

    def __init__(self, checkout: Path, output: Path, node: Mapping[str, Any]) -> None:
        self._commands, self._output = node["commands"], output
        self.called: Mapping[str, str] = node.get("called", {})
        self._about = experiments(checkout / "conf")
        file = checkout / "docs" / "results.csv"
        rows = read(file) if file.is_file() else []
        full = [row for row in rows if row["budget"] == "full" and row["seeds"] != "0"]
        self._hours = {experiment_of(row["command"]): _seed_hours(row) for row in full}  # of one seed
        self._finished: dict[tuple[tuple[str, ...], int], dict[str, Finished]] = {}

    def command(self, name: str) -> Command:
        """The command of a name: of an experiment, or of a variant that has an experiment of its own name."""
        return Command(**{"experiment": name, **self._commands.get(name, {})})

    def time(self, command: Command) -> str:
        """How long it takes, in words; "" where nobody has said."""
        hours = command.hours
        if hours is None and command.experiment in self._hours:
            hours = self._hours[command.experiment] * command.seeds
        if hours is None:
            try:
                hours = self._about.get(command.experiment, About()).hours
            except ConfigError:
                return ""
        if hours < 2:
            minutes = _rounded(hours * 60)
            return "about a minute" if minutes == 1 else f"about {minutes} minutes"
        return f"about {hours:.0f} hours"

    def finished(self, command: Command) -> Finished | None:
        """Its sweep, if one of enough seeds, from its first one on, is finished at full budget."""
        key = command.also, command.first
        if key not in self._finished:
            self._finished[key] = finished(self._output, *key)
        one = self._finished[key].get(command.experiment)
        return one if one is not None and one.budget == "full" and one.seeds >= command.seeds else None


def _seed_hours(row: Mapping[str, str]) -> float:
    return float(row["seconds"]) / int(row["seeds"]) / 3600


def _rounded(minutes: float) -> int:
    """To 5 minutes, above 10."""
    return max(1, round(minutes)) if minutes < 10 else 5 * round(minutes / 5)


def fill(checkout: Path, output: Path) -> list[str]:
    """Write docs/claims.csv and docs/claims.md, with the figures in docs/claims/, from the sweeps below `output`.

    A claim whose experiment has no finished sweep of enough seeds keeps what was measured of it, if that was the same
    statistic with the same kind of interval and enough seeds, from the first one that its command names on, and its
    verdict is given anew; of anything else the estimate is kept, without a verdict. Quick sweeps do not count.

    Returns:
        What a person must look at: claims whose statistic could not be computed.
    """
    docs = checkout / "docs"
    node = yaml.safe_load((docs / "claims.yaml").read_text(encoding="utf-8"))
    book = _Book(checkout, output, node)
    file = docs / "claims.csv"
    earlier = {}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as text:
            written = [{name: original(value) for name, value in row.items()} for row in csv.DictReader(text)]
        earlier = {(row["claim"], row["report"]): row for row in written}
    rows, problems = [], []
    for claim in node["claims"]:
        row = dict.fromkeys(COLUMNS, "") | {"claim": claim["claim"], "report": str(claim["report"])}
        row |= {"rule": claim["holds"], "note": claim.get("note", ""), "changed": claim.get("changed", "")}
        before, verdicts = earlier.get((row["claim"], row["report"]), {}), []
        for prefix, part in _parts(claim):
            known = {name: before.get(f"{prefix}{name}", "") for name in MEASURED}
            try:
                own, verdict = _part(part, Rule.parse(claim["holds"]), book, known)
            except (ConfigError, KeyError, ValueError, FileNotFoundError) as error:
                problems.append(f"docs/claims.yaml: {claim['claim']}: {' '.join(str(error).split())}")
                own, verdict = _unmeasured(part, book), TO_RUN
            row |= {f"{prefix}{name}": value for name, value in own.items()}
            verdicts.append(verdict)
        row["verdict"] = both(*verdicts) if len(verdicts) == 2 else verdicts[0]
        row["figure"] = _figure(claim, book, docs) or before.get("figure", "")
        rows.append(row)
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: guarded(value) for name, value in row.items()} for row in rows)
    titles = {name: about.title for name, about in experiments(checkout / "conf").items()}
    titles |= {file.stem: _heading(file) for file in (docs / "questions").glob("*.md")}
    write_text(docs / "claims.md", page(rows, titles))
    return problems


def _heading(file: Path) -> str:
    """The first heading of a page."""
    return next((line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), "")


def _parts(claim: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(beginning of its columns, {experiment, statistic}): of the claim, and of what is compared beside it."""
    yield "", claim
    if "beside" in claim:
        yield "beside_", claim["beside"]


def _unmeasured(part: Mapping[str, Any], book: _Book) -> dict[str, str]:
    command, node = book.command(part["experiment"]), part["statistic"]
    own = dict.fromkeys(MEASURED, "") | {"command": command.text, "time": book.time(command)}
    return own | {"statistic": statistic_in_words(node, book.called), "method": method(node)}


def _part(part: Mapping[str, Any], rule: Rule, book: _Book, known: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """What is measured of a claim, or was before, and the verdict of that alone."""
    own, command = _unmeasured(part, book), book.command(part["experiment"])
    one = book.finished(command)
    if one is not None:
        found = statistic(part["statistic"], one)
        own |= {"command": one.command, "seeds": str(one.seeds), "n": str(found.n), "estimate": short(found.value)}
        return own | {"low": short(found.low), "high": short(found.high)}, rule.verdict(found)
    if known["statistic"] != own["statistic"]:
        return own, TO_RUN
    enough = known["n"] != "" and int(known["seeds"]) >= command.seeds
    enough = enough and first_seed(known["command"].split()) >= command.first
    if known["method"] != own["method"] or not enough:
        return own | {name: known[name] for name in ("seeds", "estimate")}, TO_RUN
    own |= {name: known[name] for name in ("command", "seeds", "n", "estimate", "low", "high")}
    value, low, high = (float(known[name] or "nan") for name in ("estimate", "low", "high"))
    return own, rule.verdict(Headline(own["statistic"], value, low, high, int(known["n"])))


def _figure(claim: Mapping[str, Any], book: _Book, docs: Path) -> str:
    """The figure that shows a claim, copied into docs/claims; "" where its sweep has none or is not finished."""
    one = book.finished(book.command(claim["experiment"]))
    pictures = [] if one is None else [name for name in one.sweep.record["files"] if name.endswith(".png")]
    wanted = [name for name in pictures if name.startswith(claim.get("figure", ""))] or pictures
    if one is None or not wanted:
        return ""
    picture_of = inside(one.sweep.path, wanted[0])
    copy = inside(docs / "claims", f"{claim['experiment']}_{wanted[0]}".replace("/", "_"))
    with replacing(copy) as temporary, Image.open(picture_of) as picture:
        # 128 colours are enough for lines and bands, and a third of the size.
        picture.convert("RGB").quantize(128).save(temporary, format="PNG", optimize=True)
    return f"claims/{copy.name}"
