"""What stands elsewhere is not written again: pages take questions from conf/, numbers and verdicts from docs/*.csv."""

import csv
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from hw1.reproduction.results import experiment_of, interval_in_words, read
from hw1.settings.about import About, experiments

CHECKOUT = Path(__file__).parents[2]
RESULTS, CLAIMS = CHECKOUT / "docs" / "results.csv", CHECKOUT / "docs" / "claims.csv"


@cache  # nearly every page asks
def _experiments() -> dict[str, About]:
    return experiments(CHECKOUT / "conf")


def _of(question: str, command: str) -> bool:
    """Whether a command runs a question or one of its variants."""
    return experiment_of(command).partition("/")[0] == question


def _number(row: dict[str, str], key: str = "measured", prefix: str = "") -> str:
    """`1.345 [0.7625, 1.928]`, with - as a minus sign."""
    interval = interval_in_words(row[f"{prefix}low"], row[f"{prefix}high"])
    return f"{row[f'{prefix}{key}']}{interval}".replace("-", "−").replace("e−", "e-")


def _estimate(row: dict[str, str], prefix: str = "") -> list[str]:
    """An estimate and its n; of what is to be run again, what was measured before."""
    n = row[f"{prefix}n"]
    if n or not row[f"{prefix}estimate"]:
        return [_number(row, "estimate", prefix), n]
    return [f"before, over {row[f'{prefix}seeds']} seeds: {_number(row, 'estimate', prefix)}", ""]


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


class Facts(SphinxDirective):
    """A directive whose argument is an experiment and whose content is Markdown made of facts."""

    required_arguments = 1

    def markdown(self, name: str) -> str:
        """The Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The nodes of the Markdown."""
        for file in (RESULTS, CLAIMS, *(CHECKOUT / "conf" / "experiment").rglob("*.yaml")):
            self.env.note_dependency(str(file))
        text = self.markdown(self.arguments[0])
        if not text:
            raise self.error(f"{self.name}: got {self.arguments[0]!r}, of which nothing is known")
        return self.parse_text_to_nodes(text)


class Asked(Facts):
    """The question, the command and what to expect, as the experiment's YAML says them."""

    def markdown(self, name: str) -> str:
        """A quotation and a command."""
        about = _experiments().get(name, About())
        if not about.question:
            return ""
        lines = [f"> {about.question}", f"```\npython train.py experiment={name}\n```", f"Expect: {about.expect}"]
        return "\n\n".join(lines)


class Variants(Facts):
    """The table of a question's variants."""

    def markdown(self, name: str) -> str:
        """One row a variant."""
        known = _experiments().items()
        rows = [[f"`{key}`", about.question, about.expect] for key, about in known if key.startswith(f"{name}/")]
        return _table(["experiment=", "question", "expect"], rows) if rows else ""


class Measured(Facts):
    """The rows of docs/results.csv of a question and its variants."""

    def markdown(self, name: str) -> str:
        """One row a number; what was measured at a quick budget says so."""
        rows = []
        for row in read(RESULTS):
            if _of(name, row["command"]) and row["measured"]:
                quick = "" if row["budget"] == "full" else f" ({row['budget']} budget)"
                reported = f"{row['reported']} (report {row['report']})" if row["reported"] else ""
                rows.append(
                    [
                        f"`{experiment_of(row['command'])}`",
                        row["quantity"],
                        _number(row) + quick,
                        row["seeds"],
                        reported,
                    ]
                )
        return _table(["experiment=", "quantity", "measured [95% interval]", "seeds", "reported"], rows) if rows else ""


class Verdicts(Facts):
    """The rows of docs/claims.csv of a question and its variants."""

    def markdown(self, name: str) -> str:
        """One row a claim, or that there is none."""
        with CLAIMS.open(newline="", encoding="utf-8") as text:
            found = [row for row in csv.DictReader(text) if _of(name, row["command"])]
        rows = []
        for row in found:
            notes = [row["note"], f"exploratory, the rule was changed: {row['changed']}" if row["changed"] else ""]
            note = "".join(f" (*{words}*)" for words in notes if words)
            own = [row["report"], f"{row['claim']}{note}", row["verdict"], row["rule"]]
            rows.append([*own, *_estimate(row)])
            if row["beside_command"]:
                rows.append(["", "the same, at equal train loss", "", row["rule"], *_estimate(row, "beside_")])
        if not rows and name in _experiments():
            return "No claim about this question is among them."
        head = ["report", "claim", "verdict", "holds where it is", "estimate [95% interval]", "n"]
        return _table(head, rows) if rows else ""


class Value(SphinxRole):
    """{value}`EXPERIMENT; QUANTITY`: one number of docs/results.csv, with its interval where it has one."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number as text; an error where there is not one such row."""
        name, _, quantity = (part.strip() for part in self.text.partition(";"))
        rows = [row for row in read(RESULTS) if experiment_of(row["command"]) == name and row["quantity"] == quantity]
        if len(rows) != 1 or not rows[0]["measured"]:
            known = [row["quantity"] for row in read(RESULTS) if experiment_of(row["command"]) == name]
            said = f"value: got {self.text!r}, expected one of {known} after {name!r}: docs/results.csv has changed"
            return [], [self.inliner.reporter.error(said, line=self.lineno)]
        return [nodes.Text(_number(rows[0]))], []


class Claim(SphinxRole):
    """{claim}`BEGINNING`: the estimate of the one claim whose text begins so, with its interval and n.

    {claim}`BEGINNING; beside`: that of the comparison at equal train loss.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number as text; an error where there is not one such claim with an interval."""
        beginning = self.text.removesuffix("; beside")
        prefix = "beside_" if beginning != self.text else ""
        with CLAIMS.open(newline="", encoding="utf-8") as text:
            rows = [row for row in csv.DictReader(text) if row["claim"].startswith(beginning)]
        if len(rows) != 1 or not rows[0][f"{prefix}low"]:
            said = f"claim: got {self.text!r}, expected the beginning of one measured claim of docs/claims.csv"
            return [], [self.inliner.reporter.error(said, line=self.lineno)]
        return [nodes.Text(f"{_number(rows[0], 'estimate', prefix)}, n = {rows[0][f'{prefix}n']}")], []


def setup(app: Sphinx) -> dict[str, bool]:
    """The directives and the roles."""
    for name, directive in (("asked", Asked), ("variants", Variants), ("measured", Measured), ("verdicts", Verdicts)):
        app.add_directive(name, directive)
    app.add_role("value", Value())
    app.add_role("claim", Claim())
    return {"parallel_read_safe": True}
