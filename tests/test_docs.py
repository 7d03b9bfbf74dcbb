"""The documentation: built with warnings as errors, its notebook executed; links, commands and code are right."""

import importlib
import inspect
import json
import os
import re
import shlex
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from torch import nn

from hw1.__main__ import main
from hw1.settings.about import experiments
from warm import WarmProcess

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MISSING = [name for name in ("sphinx", "myst_nb", "pydata_sphinx_theme") if find_spec(name) is None]
NEEDS_SPHINX = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install -e '.[docs]'")
PAGES = [page for page in DOCS.rglob("*.md") if "_build" not in page.parts]


@pytest.fixture(scope="module")
def known_experiments():
    """The experiments of conf/."""
    return experiments(ROOT / "conf")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; the notebook that trains is not executed."""
    return built(tmp_path_factory.mktemp("site"), HW1_NOT_EXECUTED="notebook/training.ipynb")


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory):
    """The folder of the site as it is published."""
    return built(tmp_path_factory.mktemp("whole_site"))


def built(folder, **environment):
    kernels = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # which draws in the page
    kernels["LOKY_MAX_CPU_COUNT"] = "1"  # a notebook's runs are trained in its kernel
    words = ["-W", "--keep-going", "-q", "-d", str(folder / "trees"), str(DOCS), str(folder / "html")]
    sphinx = Path(find_spec("sphinx").origin).with_name("__main__.py")
    process = WarmProcess(sphinx, words, cwd=ROOT, env=kernels | environment)
    _, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page points to, its anchors, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update({attrs.get("id"), attrs.get("name") if tag == "a" else None} - {None})
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("script", "img", "source", "iframe", "video") and attrs.get("src"):
            self.loads.append(attrs["src"])
        if tag == "link" and attrs.get("href") and attrs.get("rel") not in ("canonical", "author"):
            self.loads.append(attrs["href"])


@NEEDS_SPHINX
def test_every_link_inside_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    require_links(site)


def require_links(site):
    """That every link leads somewhere, and nothing is loaded from elsewhere."""
    pages = {
        page.resolve(): Page(page.read_text(encoding="utf-8"))
        for page in site.rglob("*.html")
        if "_static" not in page.parts
    }
    wanted = {"tutorial.html", "curvature.html", "flatness_interp.html", "design.html", "search.html"}
    assert wanted <= {page.name for page in pages}
    for page, found in pages.items():
        for target in [*found.links, *found.loads]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target in found.links and parts.scheme in ("http", "https", "mailto"), f"{page}: loads {target}"
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert file.is_file(), f"{page}: {target}"
            if parts.fragment and file in pages:
                assert unquote(parts.fragment) in pages[file].anchors, f"{page}: {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


@NEEDS_SPHINX
def test_the_api_describes_every_public_name(site):
    """Every class and function, also of packages that import names on first use: autodoc sees what dir() lists."""
    described = {name for page in (site / "api").glob("*.html") for name in Page(page.read_text("utf-8")).anchors}
    modules = [
        module
        for page in (DOCS / "api").glob("*.md")
        for module in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))
    ]
    packages = [importlib.import_module(name) for name in modules]
    public = {
        f"{package.__name__}.{name}"
        for package in packages
        for name in getattr(package, "__all__", ())
        if inspect.isclass(thing := getattr(package, name)) or inspect.isroutine(thing)
    }
    assert {"hw1.data.Mnist", "hw1.measures.Sharpness", "hw1.studies.FlatnessInterp"} <= public
    assert public <= described, sorted(public - described)


@NEEDS_SPHINX
def test_the_notebook_is_executed_and_its_estimates_are_right(site):
    page = (site / "notebook" / "curvature.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page).replace("&#39;", "'")
    found = [float(value) for value in re.findall(r"^(\d+\.\d{4}), residual", text, re.MULTILINE)]
    exact = [float(value) for value in re.search(r"largest \[(.*?)\]", text)[1].split(",")]
    assert len(found) == 5 and found == pytest.approx(exact, rel=1e-3)
    trace = float(re.search(r"exact: (\d+\.\d+)", text)[1])
    for name in ("Hutchinson", "XTrace"):
        value, error = re.search(rf"{name}: (\d+\.\d+) \+- (\d+\.\d+)", text).groups()
        assert abs(float(value) - trace) <= 4 * float(error) + 1e-3
    assert page.count("<img") >= 2 and re.search(r"barrier: \d\.\d\d nats", text)


@pytest.mark.slow
@NEEDS_SPHINX
def test_a_notebook_that_trains_is_executed(whole_site):
    """Its sweep, tables and figures stand in the page; lines about runs are HTML, without bars at last."""
    require_links(whole_site)
    page = (whole_site / "notebook" / "training.html").read_text(encoding="utf-8")
    assert re.search(r"Sweep\(.*\): complete, 4 runs", page) and page.count("<th>sharpness/trace</th>") >= 2
    assert re.search(r"\[4/4\] batch_size=\d+_seed=\d", page) and "<progress" not in page and page.count("<img") >= 2
    assert "optimizer.lrr: got a setting that none of these runs has; did you mean optimizer.lr?" in page
    assert "6 runs, 4 complete, 2 to train" in page


@pytest.mark.parametrize("notebook", sorted((DOCS / "notebook").glob("*.ipynb")), ids=lambda file: file.stem)
def test_the_notebooks_hold_no_outputs(notebook):
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None, "clear the outputs: the site makes them"


@NEEDS_SPHINX
def test_the_drawing_has_every_room(site):
    from test_floors import FLOORS

    drawing = re.search(r"<svg class=\"house\".*?</svg>", (site / "design.html").read_text(encoding="utf-8"))[0]
    drawn = {room.removesuffix(".py") for room in re.findall(r"text-anchor=\"middle\">([^<]+)<", drawing)}
    packages = {path.stem for path in (ROOT / "src" / "hw1").iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms = {room for floor in FLOORS for room in floor} & (packages | {"hydra_plugins", "train"})
    assert rooms - {"_before_torch", "optim"} <= drawn and drawn <= rooms


def test_every_question_has_a_page_with_its_facts(known_experiments):
    for name in known_experiments:
        if "/" not in name:
            page = (DOCS / "questions" / f"{name}.md").read_text(encoding="utf-8")
            for directive in ("asked", "verdicts", "measured", "variants"):
                assert f"```{{{directive}}} {name}\n```" in page
            assert re.search(r"!\[[^\]]{20,}\]", page), "a figure that says what it shows"
            assert f"({name}.md)" in (DOCS / "questions" / "index.md").read_text(encoding="utf-8")


def commands(page):
    """The commands of a page's blocks that say no language."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


TRAININGS = {c.removesuffix(" --dry-run") for c in commands(DOCS / "tutorial.md") if c.startswith("python train.py")}


@pytest.mark.parametrize("line", sorted(TRAININGS))
def test_commands_of_the_tutorial_can_be_planned(line, command, tmp_path):
    made = command(*shlex.split(line)[2:], "dataset.source=bundled", "--dry-run", output=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "nothing was trained" in made.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_commands_of_every_page_exist(page, known_experiments, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.search(r"\{([a-z,]+)\}", capsys.readouterr().out)[1].split(","))
    text = page.read_text(encoding="utf-8")
    words = set(re.findall(r"python -m hw1 ([a-z]+)", text))
    assert words <= known
    for name in re.findall(r"(?<![\w.])experiment=([a-z0-9_/]+)", text):
        assert name in known_experiments or name == "seed_spread"


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def given():
    """What the pages on curvature say that the reader brings."""
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2))
    x, y = torch.randn(90, 1, 4, 4), torch.randint(0, 3, (90,))
    size = sum(parameter.numel() for parameter in a.parameters())
    return {
        **{"a": a, "b": b, "net": a, "x": x, "y": y, "criterion": nn.CrossEntropyLoss()},
        **{"batches": [(x[:40], y[:40]), (x[40:], y[40:])], "parameters": list(a.parameters())},
        **{"v": torch.randn(size), "d": torch.randn(size), "alphas": [i / 21 for i in range(1, 22)]},
    }


def test_blocks_of_the_curvature_guide_run(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(DOCS / "curvature_guide.md")
    for block in blocks:
        if "def batch_loss" not in block:  # a language model, which is not at hand
            exec(block, given)
    said = capsys.readouterr().out
    assert len(blocks) >= 4 and "eigenvalues" in said and "barrier" in said and "BoxRise" in said


PEERS = {"PyHessian": "pyhessian", "curvlinops": "curvlinops", "loss-landscapes": "loss_landscapes"}
EQUAL = ("Hessian times vector", "between two networks", "largest eigenvalue", "solve (A + λ I) x = b")


@pytest.mark.parametrize("tool", PEERS)
@pytest.mark.filterwarnings("ignore")  # of the other tools
def test_their_lines_and_ours(given, tool):
    text = (DOCS / "coming_from.md").read_text(encoding="utf-8")
    exec(python_blocks(DOCS / "coming_from.md")[0], given)
    section = text.partition(f"\n## {tool}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(.+)` \|$", section, re.MULTILINE)
    assert len(rows) >= 2
    theirs = None
    if find_spec(PEERS[tool]):
        theirs = dict(given)
        exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], theirs)
    for what, left, right in rows:
        ours = eval(right, given)
        if theirs is not None and left != "–" and what not in ("spectral density",):
            other = eval(left.strip("`"), theirs)
            if what in EQUAL:
                assert torch.as_tensor(other).double().flatten() == pytest.approx(
                    torch.as_tensor(ours).double().flatten(), rel=1e-3, abs=1e-4
                )
