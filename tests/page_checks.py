"""What every HTML page of the project keeps to: valid, one file, printable, readable by everyone."""

import os
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest

from browser import opened

LARGEST = 5 * 2**20  # bytes
NARROW = {"width": 320, "height": 640}  # CSS pixels: WCAG 2.2, 1.4.10 (reflow)

_SOURCES = {"src", "srcset", "poster", "data", "background"}  # attributes that fetch; a link's href does not
_FETCHING = re.compile(r"url\(\s*['\"]?(?!data:|#|['\"]?\s*\))|@import", re.IGNORECASE)


def syntax_errors(html):
    """Parse errors of the HTML standard, by html5lib: "line:column: name of the error"."""
    html5lib = pytest.importorskip("html5lib")
    parser = html5lib.HTMLParser()
    parser.parse(html)
    return [f"{line}:{column}: {code}" for (line, column), code, _ in parser.errors]


def invalid(file):
    """What the Nu HTML checker (validator.w3.org's) has against a page, its CSS too: errors and warnings."""
    jar = os.environ.get("VNU_JAR")
    if not jar or not shutil.which("java"):
        pytest.skip("VNU_JAR names no vnu.jar, or there is no java: npm install vnu-jar")
    words = ["java", "-jar", jar, "--exit-zero-always", "--format", "gnu", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [line.partition(f'{file.name}":')[2] or line for line in done.stderr.splitlines()]


def fetched(html):
    """What a page would fetch besides itself: images, styles, scripts and fonts that do not stand inside."""
    html5lib = pytest.importorskip("html5lib")
    found = []
    for element in html5lib.parse(html, namespaceHTMLElements=False).iter():
        sources = _SOURCES | ({"href"} if element.tag in ("link", "image", "use") else set())
        for name, value in element.attrib.items():
            if name in sources and not value.startswith(("data:", "#")):
                found.append(f"{element.tag} {name}={value[:80]}")
            if name == "style" and _FETCHING.search(value):
                found.append(f"{element.tag} style={value[:80]}")
        if element.tag == "style":
            found += [f"style: {match.group()}" for match in _FETCHING.finditer(element.text or "")]
    return found


def dead_links(html, folder):
    """Links to places in the page, or to files beside it, that are not there."""
    html5lib = pytest.importorskip("html5lib")
    elements = list(html5lib.parse(html, namespaceHTMLElements=False).iter())
    places = {element.get("id") for element in elements}
    links = [element.get("href") for element in elements if element.tag == "a" and element.get("href")]
    inside = [link for link in links if link.startswith("#") and link[1:] not in places]
    beside = [
        link
        for link in links
        if not re.match(r"#|\w+:", link) and not (folder / unquote(link.partition("#")[0])).exists()
    ]
    return inside + beside


def lines_of(text):
    """The text that is seen, line by line, without the white space of its layout."""
    return {" ".join(line.split()) for line in text.splitlines() if line.strip()}


def unread_without_javascript(browser, url):
    """Lines that are seen with JavaScript and not without it."""
    seen = []
    for javascript in (True, False):
        with opened(browser, url, java_script_enabled=javascript) as page:
            seen.append(lines_of(page.inner_text("body")))
    return sorted(seen[0] - seen[1])


def background(browser, url, scheme):
    """Luminance of the page's background from 0 (black) to 1, as WCAG defines it, under a colour scheme."""
    # An element that is painted all over in the system's colours tells what "transparent" means there.
    script = """() => {
        const own = [document.body, document.documentElement].map(e => getComputedStyle(e).backgroundColor)
        const opaque = own.find(c => !/, 0\\)$|transparent/.test(c))
        const canvas = document.createElement("div")
        canvas.style.backgroundColor = "Canvas"
        document.documentElement.append(canvas)
        const colour = opaque || getComputedStyle(canvas).backgroundColor
        canvas.remove()
        const pixel = new OffscreenCanvas(1, 1).getContext("2d")
        pixel.fillStyle = colour
        pixel.fillRect(0, 0, 1, 1)
        return [...pixel.getImageData(0, 0, 1, 1).data.slice(0, 3)]
    }"""
    with opened(browser, url, color_scheme=scheme) as page:
        shares = [value / 255 for value in page.evaluate(script)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def too_wide(browser, url):
    """By how many CSS pixels the whole page scrolls sideways on a telephone."""
    with opened(browser, url, viewport=NARROW) as page:
        return page.evaluate("document.documentElement.scrollWidth") - NARROW["width"]


def printed(browser, url):
    """(the page as a PDF, its number of sheets of A4)."""
    with opened(browser, url) as page:
        pdf = page.pdf(format="A4")
    counts = [int(number) for number in re.findall(rb"/Type\s*/Pages\b.*?/Count\s+(\d+)", pdf, re.DOTALL)]
    return pdf, max(counts, default=len(re.findall(rb"/Type\s*/Page\b", pdf)))
