"""docs/claims.md: the verdicts by question, a line each, with numbers and commands behind a fold. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hw1.markdown import address, code, text
from hw1.reproduction.results import experiment_of
from hw1.reproduction.verdicts import DEPENDS, DOES_NOT, HOLDS, TO_RUN

# What is measured stands twice, for a claim and for what is compared beside it.
MEASURED = ("command", "time", "statistic", "method", "seeds", "n", "estimate", "low", "high")
COLUMNS = (
    *("claim", "report", "rule", "verdict", "note", "changed", *MEASURED),
    *(f"beside_{name}" for name in MEASURED),
    "figure",
)
LEAST_SEEDS = 5
_BY_CHANCE = 0.025  # of a 95% interval lies on one given side of what is true


def page(rows: Sequence[Mapping[str, str]], titles: Mapping[str, str]) -> str:
    """docs/claims.md.

    Args:
        rows: of claims.csv.
        titles: {experiment: title, or the question that it answers}.
    """
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(experiment_of(row["command"]).partition("/")[0], []).append(row)
    count = {word: sum(row["verdict"] == word for row in rows) for word in (HOLDS, DOES_NOT, DEPENDS, TO_RUN)}
    rest = len(rows) - sum(count.values())
    tried = {word: sum(row["verdict"] == word and bool(row["changed"]) for row in rows) for word in count}
    undecided = sum(bool(row["changed"]) for row in rows) - sum(tried.values())
    judged = len(rows) - count[TO_RUN]
    lines = [
        "# What the reports concluded, and what is measured",
        "",
        "Five reports of a deep-learning course, numbered 000 to 004, drew these conclusions from one training each,",
        "or from a few. Here each is a rule for a number with an interval. Written by `python -m hw1 claims` from",
        "finished sweeps and the rules in [claims.yaml](claims.yaml), which were written before their runs. Where a",
        "first run had suggested another rule, new seeds were trained (those from 5, 8 or 10 on); where the rule was",
        "changed and the same runs are judged, the verdict is *exploratory*: it suggests, and decides nothing.",
        f"Of {len(rows)} claims {count[HOLDS]} hold ({tried[HOLDS]} of them exploratory), {count[DOES_NOT]} do not",
        f"({tried[DOES_NOT]}), {count[DEPENDS]} depend on the comparison ({tried[DEPENDS]}), and {rest} are undecided",
        f"({undecided}).",
        *_to_run(count[TO_RUN]),
        "",
        "- *Gap*: loss on the test set minus loss on the training set, in nats. *Sensitivity*: the length of the",
        "  derivative of the loss by the input. *Sharpness*: Keskar's, the largest rise of the loss in a small box",
        "  around the weights, in per cent of 1 + the loss. *alpha*: the place on the straight line between two",
        "  solutions, 0 at the small-batch one, 1 at the large-batch one.",
        "- A claim holds where the whole 95% interval obeys its rule, does not hold where all of it breaks the rule,",
        "  and is undecided otherwise. Where two comparisons are fair (after equally many epochs, and at equal train",
        "  loss) it needs both; where they contradict each other it depends on the comparison.",
        f"- One side of a 95% interval is missed in 2.5%: of {judged} claims whose truth lies at the edge of their",
        f"  rule about {_BY_CHANCE * judged:.0f} would hold by chance, and as many would not.",
        f"- At least {LEAST_SEEDS} seeds, 10 where a run takes under a minute, 100 nets for a share. n counts what is",
        "  independent: seeds, or models, sizes and settings whose runs are alike. Networks that have learned nothing",
        "  have no gap, and no part in a correlation with one.",
        "- Intervals: Student's over seeds; of accuracies Student's of the logit of their mean, of correlations along",
        "  each run Fisher's z, so that none leaves the range of its quantity; none where all values are equal. Of",
        "  rank correlations over runs, from orders exchanged within each seed, or among the means of models; given a",
        "  train loss, of what the regression on it leaves. Of shares Wilson's; of their difference",
        "  that of McNemar's exact test over nets of the same start; of distances between paths the jackknife's.",
        "",
    ]
    for group, own in groups.items():
        lines += [f"## {titles.get(group) or group}", ""]
        lines += [_verdict(row) for row in own]
        lines += ["", "<details><summary>Numbers and commands</summary>", "", *_table(own), "", "</details>", ""]
    return "\n".join(lines)


def _to_run(number: int) -> list[str]:
    if not number:
        return []
    are = "One is" if number == 1 else f"{number} are"
    return [
        f"{are} to be run again, by the command behind its fold: what is measured has too few seeds or an old interval."
    ]


def _verdict(row: Mapping[str, str]) -> str:
    note = f" *{text(row['note'])}*" if row["note"] else ""
    note += f" *The rule was changed: {text(row['changed'])}.*" if row["changed"] else ""
    verdict = f"**{text(row['verdict'])}**" + (", exploratory" if row["changed"] else "")
    return f"- {verdict}: {text(row['claim'])} (report {text(row['report'])}){note}"


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    lines = ["| claim | measured | estimate [95% interval] | rule | command | figure |", "|---|---|---|---|---|---|"]
    for row in rows:
        figure = f"[figure]({address(row['figure'])})" if row["figure"] else ""
        lines.append(_line(row["claim"], row, "", row["rule"], figure))
        if row["beside_command"]:
            lines.append(_line("the same, at equal train loss", row, "beside_", row["rule"], ""))
    return lines


def _line(claim: str, row: Mapping[str, str], prefix: str, rule: str, figure: str) -> str:
    command, time, words, kind, seeds, n, estimate, low, high = (row[f"{prefix}{name}"] for name in MEASURED)
    interval = f" [{low}, {high}]" if low else ""
    found = text(f"{estimate}{interval}, n = {n} ({kind})" if n else TO_RUN)
    found += text(f"; before, over {seeds} seeds: {estimate}") if estimate and not n else ""
    run = code(command) if n or not time else f"{code(command)}, {text(time)} on one core"
    cells = [*map(text, (claim, words)), found, text(rule), run, figure]
    return f"| {' | '.join(cells)} |"
