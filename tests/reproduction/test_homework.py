"""The homework with a train.py made for the test: order, failures, the page."""

import html
import re
import shlex
from urllib.parse import unquote

import pytest

from hw1.reproduction.homework import homework, page, questions

TRAIN = """
import json, pathlib, sys
words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
print("asked", words["experiment"], words.get("seed"))
if words["experiment"] == "broken":
    sys.exit("error: no")
folder = pathlib.Path(words["output"]) / words["experiment"] / "sweeps" / "now #1 50%"
folder.mkdir(parents=True)
(folder / "report.html").write_text("the report")
(folder / "curve.png").write_bytes(b"picture")
record = {"budget": "quick", "answer": ["It is so.\\x1b[2J"],
          "headlines": ["loss < 1 = 0.5 [0.4, 0.6], n = 3"], "failed": {}, "files": ["curve.png"]}
(folder / "sweep.json").write_text(json.dumps(record))
print("report: " + str(folder / "report.html"))
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with two questions and a variant."""
    (tmp_path / "train.py").write_text(TRAIN)
    folder = tmp_path / "conf" / "experiment"
    (folder / "first").mkdir(parents=True)
    (folder / "first.yaml").write_text("# @package _global_\nabout: {question: 'is it so? (section 1)'}\n")
    (folder / "broken.yaml").write_text("name: broken\n")
    (folder / "first" / "variant.yaml").write_text("about: {question: 'and here?'}\n")
    return tmp_path


def test_the_questions_are_the_experiments_of_the_first_level(checkout):
    found = questions(checkout / "conf")
    assert list(found) == ["first", "broken"]  # which says no section of the reports
    assert found["first"].question == "is it so? (section 1)"


def test_all_questions_on_one_page_and_a_failure_among_them(checkout, capfd):
    assert homework(checkout, ["budget=quick", "seed=1,2", "model.hidden=[3]", f"output={checkout / 'out'}"]) == 1
    said = capfd.readouterr()
    assert said.out.index("asked first 1,2") < said.out.index("asked broken 1,2")
    assert "failed: broken: exit code 1" in said.err and "failed: first" not in said.err
    (index,) = (checkout / "out" / "homework").glob("*/index.html")
    text = index.read_text()
    assert "is it so? (section 1)" in text and "loss &lt; 1 = 0.5 [0.4, 0.6], n = 3" in text
    assert "budget=quick: " in text and "<p>It is so.[2J</p>" in text and "data:image/png;base64,cGljdHVyZQ==" in text
    (link,) = re.findall(r'href="([^"#]+)"', text)
    assert (index.parent / unquote(link)).read_text() == "the report"
    pasted = [shlex.split(html.unescape(command)) for command in re.findall("<code>(python .*?)</code>", text)]
    assert [words[2:6] for words in pasted] == [
        [f"experiment={name}", "budget=quick", "seed=1,2", "model.hidden=[3]"] for name in ("first", "broken")
    ]
    assert "'model.hidden=[3]'" in html.unescape(text) and "\x1b" not in text
    (checkout / "conf" / "experiment" / "broken.yaml").unlink()
    assert homework(checkout, [f"output={checkout / 'other'}"]) == 0


def test_an_interrupt_ends_the_homework(checkout):
    (checkout / "train.py").write_text("import sys\nsys.exit(130)\n")
    assert homework(checkout, [f"output={checkout / 'out'}"]) == 130
    (index,) = (checkout / "out" / "homework").glob("*/index.html")
    assert index.read_text().count("not run") == 2  # the second question: in the list and at its place


def test_a_dry_run_leaves_no_page(checkout):
    (checkout / "train.py").write_text("print('nothing was trained')\n")
    assert homework(checkout, ["--dry-run", f"output={checkout / 'out'}"]) == 0
    assert not (checkout / "out").exists()


def test_a_page_of_nothing(tmp_path):
    assert "<h1>Homework</h1>" in page([], tmp_path)


def test_without_a_checkout_the_installed_command_is_run(checkout, monkeypatch, capfd):
    (checkout / "train.py").unlink()
    (checkout / "here" / "hw1").mkdir(parents=True)
    (checkout / "here" / "hw1" / "__init__.py").write_text("")
    (checkout / "here" / "hw1" / "__main__.py").write_text("import sys\nprint('asked', *sys.argv[1:])\n")
    monkeypatch.chdir(checkout / "here")  # whose module of that name `python -m` runs
    assert homework(checkout, ["budget=quick"]) == 0
    said = capfd.readouterr().out
    assert (
        "[1/2] python -m hw1 train experiment=first budget=quick\n  asked train experiment=first budget=quick\n" in said
    )
    assert list((checkout / "here" / "multirun" / "homework").glob("*/index.html"))
