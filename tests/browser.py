"""A headless Chromium, where there is one: what a person sees of a page, and what axe-core says of it."""

import os
import shutil
from contextlib import contextmanager

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing():
    """Why no browser can be driven here; "" if one can."""
    try:
        import axe_playwright_python  # noqa: F401
    except ImportError:
        return "axe-playwright-python is not installed: pip install -e '.[browser]'"
    return "" if PROGRAM else "no Chromium on the PATH: apt-get install chromium"


needed = pytest.mark.skipif(bool(missing()), reason=missing())


@contextmanager
def chromium():
    """A browser that ends with the block."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []  # root has no sandbox
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, url, **context):
    """A page of its own context, loaded; `page.asked` are the addresses that it fetched."""
    with browser.new_context(**context) as own:
        page = own.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(url)
        yield page


def accessibility_errors(browser, url, scheme="light"):
    """Violations of all of axe-core's rules, best practices too: "rule (impact): place: what is wrong" a node."""
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, url, color_scheme=scheme) as page:
        found = Axe().run(page).response["violations"]
    nodes = [(f"{rule['id']} ({rule['impact']})", node) for rule in found for node in rule["nodes"]]
    return [
        f"{rule}: {' '.join(map(str, node['target']))}: {_one_line(node['failureSummary'])}" for rule, node in nodes
    ]


def _one_line(text):
    return " ".join(text.split())
