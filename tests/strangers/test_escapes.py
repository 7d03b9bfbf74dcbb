"""Names, settings and messages of a stranger's are text wherever they go."""

import csv
import io
import xml.etree.ElementTree as ET

import matplotlib
import pandas as pd
import pytest
from jinja2 import Environment
from matplotlib.figure import Figure

from hw1.cells import guarded, guarded_table, original, original_table
from hw1.command import fail
from hw1.markdown import address, code, text
from hw1.paper import template
from hw1.plots.style import save
from hw1.plots.text import FORMULAS, as_text
from hw1.report.conclude import conclude
from hw1.report.export import export
from hw1.reproduction import claims_page, results
from hw1.runs import Sweep
from hw1.settings import ConfigError
from hw1.terminal import say
from made_runs import make_run, make_sweep

matplotlib.use("agg")
MARKUP = "<img src=x onerror=alert(1)>"
STRANGE = [MARKUP, "[x](javascript:alert(1))", "a|b", "`x` and ``y``", "**bold** _x_", "~~gone~~", "$x$", "&lt;", "a\\"]
TERMINAL = "\x1b[2J\x1b]0;title\x07 \u202eevil\u202c \x9b31m\r\n"
FORMULAS_OF_SHEETS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    '=HYPERLINK("http://x")',
    "'=x",
    "''-x",
    "\t=1",
    "-",
    "=cmd|' /C'!A0",
]


# Pages


def test_a_page_shows_markup_as_text():
    naive = Environment().from_string("{{ x }}").render(x=MARKUP)
    assert MARKUP in naive
    page = template("hw1.report", "page.html.j2")
    source = page.environment.from_string("<p title='{{ x }}'>{{ x }}</p>")
    made = source.render(x=MARKUP + "'" + TERMINAL)
    assert "<img" not in made and "onerror='" not in made and "\x1b" not in made and "\u202e" not in made


# Markdown


def rendered(line):
    """As CommonMark has it, with tables."""
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py renders what was written")
    return markdown.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(line)


@pytest.mark.parametrize("strange", STRANGE)
def test_markdown_shows_text_as_text(strange):
    table = "| a | b |\n|---|---|\n"
    made = rendered(f"{table}| {text(strange)} | {code(strange)} |")
    assert made.count("<td>") == 2
    first, second = ET.fromstring(made).findall(".//td")
    assert ("".join(first.itertext()), len(list(first))) == (strange, 0)
    assert [child.tag for child in second] == ["code"] and "".join(second.itertext()) == strange
    assert address(strange).isascii() and not set(address(strange)) & set("()<>[]|\\ :")


def test_markdown_as_it_was():
    made = rendered(f"{MARKUP} [x](http://x)")
    assert "<img" in made and "<a href" in made


def test_pages_of_results_and_claims_escape_what_runs_say():
    row = dict.fromkeys(results.COLUMNS, "") | {"budget": "full", "report": "1", "command": f"a `{MARKUP}` | b"}
    row |= {"quantity": f"{MARKUP}|", "reported": "", "measured": "1"}
    page = results.with_table("<!-- results -->\n<!-- /results -->", [row])
    line = page.splitlines()[3]
    assert (
        line.replace("\\|", "").count("|") == 5
        and f"`` a `{MARKUP}` \\| b ``" in line
        and f"\\{MARKUP[:-1]}\\>" in line
    )
    claim = dict.fromkeys(claims_page.COLUMNS, "") | {"claim": MARKUP, "verdict": "holds", "command": "x | `y`"}
    claim |= {"figure": "claims/a b](x).png", "n": "3", "estimate": "1"}
    written = claims_page.page([claim], {})
    assert f" {MARKUP}" not in written and "(claims/a%20b%5D%28x%29.png)" in written


# CSV


@pytest.mark.parametrize("cell", FORMULAS_OF_SHEETS)
def test_a_cell_of_text_is_no_formula_and_comes_back(cell):
    assert guarded(cell).startswith("'") and original(guarded(cell)) == cell
    assert guarded(guarded(cell)) != guarded(cell) and original(original(guarded(guarded(cell)))) == cell


@pytest.mark.parametrize("cell", ["-1", "+5", "-1e-3", "-inf", "seed=1", "'quoted'", "", "a=b", "x", "'"])
def test_other_cells_stay(cell):
    assert guarded(cell) == original(cell) == cell


def test_numbers_stay_numbers_and_tables_come_back(tmp_path):
    table = pd.DataFrame({"=name": FORMULAS_OF_SHEETS, "x": [-1.5] * 10, "n": range(-5, 5), "mixed": ["-1", None] * 5})
    export(table, tmp_path / "a.csv")
    cells = list(csv.reader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert cells[0] == ["'=name", "x", "n", "mixed"] and all(row[0].startswith("'") for row in cells[1:])
    assert {row[1] for row in cells[1:]} == {"-1.5"} and cells[1][2:] == ["-5", "-1"]
    read = original_table(pd.read_csv(tmp_path / "a.csv"))
    assert list(read["=name"]) == FORMULAS_OF_SHEETS and list(read["n"]) == list(range(-5, 5))
    assert guarded_table(table).equals(guarded_table(table)) and list(table["=name"]) == FORMULAS_OF_SHEETS


def test_tables_of_a_sweep_come_back(tmp_path):
    runs = [make_run(tmp_path, seed=seed, metrics={"=1+1": 0.5, "test/loss": 1.0})[0] for seed in (0, 1)]
    sweep = make_sweep(tmp_path, runs, ["seed"])
    conclude(sweep)
    assert "'=1+1" in (sweep / "runs.csv").read_text().splitlines()[0]
    assert "=1+1" in Sweep.read(sweep).tables["runs"].columns


# Figures


def figure(words):
    made = Figure(figsize=(2, 2))
    ax = made.subplots()
    ax.plot([1, 100], [1e-5, 1e-4], label=words)
    ax.set_xscale("log")
    ax.set_title(words)
    made.legend()
    return made


def test_a_figure_takes_names_for_no_tex(tmp_path):
    words = r"$\frac{$ 5$ \evil$"
    with pytest.raises(ValueError, match="frac"):
        save(figure(words), tmp_path / "naive")
    made = figure(words)
    as_text(made)
    save(made, tmp_path / "ours")
    assert ET.parse(tmp_path / "ours.svg").getroot().tag.endswith("svg")


def test_formulas_of_hw1s_own_stay():
    for words, parsed in [(FORMULAS[0], True), (f"x in {FORMULAS[1]}", True), (f"{FORMULAS[0]} $evil$", False)]:
        made = figure(words)
        made.canvas.draw()
        as_text(made)
        assert made.axes[0].title.get_parse_math() is parsed
        assert made.axes[0].xaxis.get_ticklabels()[0].get_parse_math()  # powers of ten


def test_an_svg_holds_no_control_characters(tmp_path):
    save(figure(f"a{TERMINAL}b"), tmp_path / "naive")
    with pytest.raises(ET.ParseError):
        ET.parse(tmp_path / "naive.svg")
    made = figure(f"a{TERMINAL}b")
    as_text(made)
    save(made, tmp_path / "ours")
    ET.parse(tmp_path / "ours.svg")


# The terminal


def test_a_terminal_is_not_told_what_to_do(capsys):
    print(TERMINAL)
    assert "\x1b" in capsys.readouterr().out
    say(f"run {TERMINAL} failed", "second")
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3 and all(char.isprintable() or char == "\n" for char in out)
    with pytest.raises(SystemExit):
        fail(ConfigError(f"model: got {TERMINAL}x"), full=False)
    assert all(char.isprintable() or char == "\n" for char in capsys.readouterr().err)
