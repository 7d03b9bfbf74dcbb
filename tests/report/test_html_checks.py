"""Every kind of page: valid HTML, one file, readable by everyone, printable; seen by a real browser where there is one.

Where html5lib, a Chromium or the Nu checker is missing, the checks that need it are skipped and say what to install.
"""

import json

import pytest

import browser
import page_checks
from hw1.report.compare import compare
from hw1.report.conclude import conclude
from hw1.report.side_by_side import write_page
from hw1.reproduction.homework import homework
from hw1.runs import Sweep
from made_runs import make_run, make_sweep

STUDY = {
    "_target_": "hw1.studies.FlatnessInterp",
    "pair_by": "dataset.batch_size",
    "start": -1.0,
    "stop": 2.0,
    "points": 7,
}
KINDS = ("sweep", "failed", "plain", "homework", "compare")
SCHEMES = ("light", "dark")

# A homework of three questions: one answered, one whose command fails, one that is not asked.
TRAIN = """
import json, pathlib, sys
words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
answered = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text()).get(words["experiment"])
if not answered:
    sys.exit(130 if words["experiment"] == "later" else 1)
print("report: " + answered)
"""


def answered(root, *, bad=False, study=STUDY, **more):
    """The page of a sweep of runs with random weights."""
    folders = [make_run(root, batch_size, seed)[0] for seed in (0, 1) for batch_size in (16, 64)]
    if bad:
        folders.append(make_run(root, 256, status="failed")[0])
    folder = make_sweep(root, folders, ["dataset.batch_size", "seed"], study=study)
    record = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(record | more))
    conclude(folder)
    return folder / "report.html"


def compared(root, one):
    """The page of two sweeps: of that with this page, and of one with other losses, a headline and no page."""
    folders = [
        make_run(root, size, seed, lr=0.1, metrics={"test/loss": 1.01 * seed + size, "test/accuracy": 0.75})[0]
        for seed in (0, 1)
        for size in (16, 32)
    ]
    folder = make_sweep(root, folders, ["dataset.batch_size", "seed"], study=STUDY)
    sweeps = [Sweep.read(one.parent), Sweep.read(folder)]
    for sweep in sweeps:
        sweep.record["numbers"] = [{"name": "barrier", "value": 1.0, "low": 0.5, "high": 2.0, "n": 3}]
    sweeps[1].record["budget"] = "quick"
    found = compare(*sweeps)
    assert found.numbers and found.settings and any(one.decided for one in found.metrics)
    write_page(found, root / "compare.html")
    return root / "compare.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{kind: file of a page}."""
    root = tmp_path_factory.mktemp("pages")
    made = {
        "sweep": answered(root / "sweep"),
        "failed": answered(root / "failed", bad=True, budget="quick"),
        "plain": answered(root / "plain", study=None),
    }
    checkout = root / "checkout"
    (checkout / "conf" / "experiment").mkdir(parents=True)
    (checkout / "train.py").write_text(TRAIN)
    (checkout / "train.json").write_text(json.dumps({"first": str(made["sweep"]), "second": str(made["failed"])}))
    for name in ("broken", "first", "later", "second"):
        about = {"title": f"The {name} one", "question": f"Is it so in the {name} one?", "expect": "1 minute; so."}
        text = f"# @package _global_\nabout: {json.dumps(about)}\n"
        (checkout / "conf" / "experiment" / f"{name}.yaml").write_text(text)
    homework(checkout, [f"output={checkout / 'out'}"])
    (made["homework"],) = (checkout / "out" / "homework").glob("*/index.html")
    made["compare"] = compared(root / "other", made["sweep"])
    return made


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as one:
        yield one


@pytest.fixture(params=KINDS)
def page(request, pages):
    return pages[request.param]


def test_it_is_parsed_without_an_error(page):
    errors = page_checks.syntax_errors(page.read_text())
    assert not errors, "\n".join(errors)


def test_the_nu_checker_finds_nothing(page):
    errors = page_checks.invalid(page)
    assert not errors, "\n".join(errors)


def test_it_is_one_file_that_fetches_nothing(page):
    assert page_checks.fetched(page.read_text()) == [] and page.stat().st_size < page_checks.LARGEST


def test_no_link_is_dead(page):
    assert page_checks.dead_links(page.read_text(), page.parent) == []


@browser.needed
def test_a_browser_fetches_nothing_else(page, chromium):
    with browser.opened(chromium, page.as_uri()) as seen:
        assert [address for address in seen.asked if not address.startswith("data:")] == [page.as_uri()]
        assert seen.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@browser.needed
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_no_violation(page, chromium, scheme):
    errors = browser.accessibility_errors(chromium, page.as_uri(), scheme)
    assert not errors, "\n".join(errors)


@browser.needed
def test_it_is_light_on_request_and_dark_on_request(page, chromium):
    light, dark = (page_checks.background(chromium, page.as_uri(), scheme) for scheme in SCHEMES)
    assert light > 0.8 and dark < 0.1


@browser.needed
def test_it_is_read_without_javascript(page, chromium):
    assert page_checks.unread_without_javascript(chromium, page.as_uri()) == []


@browser.needed
def test_it_fits_a_telephone(page, chromium):
    assert page_checks.too_wide(chromium, page.as_uri()) <= 0


@browser.needed
def test_it_prints(page, chromium):
    pdf, sheets = page_checks.printed(chromium, page.as_uri())
    assert pdf.startswith(b"%PDF-") and sheets >= 1 and len(pdf) > 10_000


HEAD = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title></head>'
SOUND = HEAD + "<body><main>{}</main></body></html>"


@pytest.mark.parametrize(
    ("inside", "check", "told"),
    [
        ("<p>one<div>two</p></div>", page_checks.syntax_errors, 1),
        ("<p>a & b &nosuch; c</p>", page_checks.syntax_errors, 1),
        ("<p>fine <br> here</p>", page_checks.syntax_errors, 0),
        ('<img src="a.png" alt=""><img src="data:," alt="">', page_checks.fetched, 1),
        ('<link rel="stylesheet" href="https://x/y.css"><a href="https://x">x</a>', page_checks.fetched, 1),
        (
            '<style>p { background: url("https://x/y.png") } q { background: url(data:,) }</style>',
            page_checks.fetched,
            1,
        ),
        ('<p style="background: url(x.png)">x</p>', page_checks.fetched, 1),
    ],
)
def test_the_checks_find_what_they_are_for(inside, check, told):
    assert len(check(SOUND.format(inside))) == told


def test_dead_links_are_found(tmp_path):
    (tmp_path / "there.csv").write_text("")
    links = '<h2 id="a">a</h2><a href="#a">1</a><a href="#b">2</a><a href="there.csv">3</a><a href="gone.csv">4</a>'
    assert page_checks.dead_links(SOUND.format(links), tmp_path) == ["#b", "gone.csv"]


def test_the_nu_checker_finds_what_it_is_for(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(SOUND.format('<ul><p>x</p></ul><p style="colour: red">y</p>'))
    (child, style) = page_checks.invalid(page)
    assert "Element “p” not allowed as child of element “ul”" in child and "colour" in style


@browser.needed
def test_the_browser_finds_what_it_is_for(tmp_path, chromium):
    def url(name, inside):
        (tmp_path / name).write_text(SOUND.format(inside))
        return (tmp_path / name).as_uri()

    pale = url("pale.html", '<h1>t</h1><p style="color: #bbb; background: #fff">pale</p><img src="data:,">')
    errors = browser.accessibility_errors(chromium, pale)
    assert {error.partition(" ")[0] for error in errors} == {"color-contrast", "image-alt"}
    scripted = url("scripted.html", "<h1>t</h1><script>document.body.append('only by script')</script>")
    assert page_checks.unread_without_javascript(chromium, scripted) == ["only by script"]
    assert page_checks.too_wide(chromium, url("wide.html", '<div style="width: 400px">x</div>')) > 50
    both = url("both.html", "<style>:root { color-scheme: light dark }</style><h1>t</h1>")
    assert page_checks.background(chromium, both, "light") == 1 and page_checks.background(chromium, both, "dark") < 0.1
    assert page_checks.printed(chromium, url("long.html", "<p>line</p>" * 200))[1] > 1
