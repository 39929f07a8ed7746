"""The documentation site: complete, no dead link, quiet in a browser that has no network, searchable there.

It is built once into a folder of the session, as `make docs` does; `MFRESNET_SITE` names a finished one instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")
FLAGS = ["--no-sandbox", "--no-first-run", *(f"--disable-{service}" for service in QUIET)]
PAGES = ("index", "start", "concepts", "certificates", "theory", "configuration", "benchmarks", "tutorials/two_spirals")
pytestmark = pytest.mark.slow


class Links(HTMLParser):
    """What a page links to and embeds, and the places that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.embedded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.places |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        source = {"link": "href", "script": "src", "img": "src", "source": "src"}.get(tag)
        if source and values.get(source) and values.get("rel") not in ("index", "search", "next", "prev"):
            self.embedded.append(values[source])


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    if os.environ.get("MFRESNET_SITE"):
        return Path(os.environ["MFRESNET_SITE"]).resolve()
    pytest.importorskip("sphinx", reason="the documentation tools are not installed: pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="session")
def pages(site) -> dict[Path, Links]:
    found = {path: Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    assert len(found) > 40
    return found


def test_no_internal_link_is_dead(pages, site):
    dead = []
    for page, links in pages.items():
        for link in {*links.links, *links.embedded}:
            if link.startswith(("http:", "https:", "mailto:", "data:", "javascript:")):
                continue
            address, place = urldefrag(unquote(link))
            target = (page.parent / address.partition("?")[0]).resolve() if address else page
            if not target.exists():
                dead.append(f"{page.relative_to(site)}: {link}")
            # source pages link back to the page of an object, and know no place for names that are re-exported
            elif (
                place
                and target in pages
                and page.relative_to(site).parts[0] != "_modules"
                and (place not in pages[target].places)
            ):
                dead.append(f"{page.relative_to(site)}: {link} (no such place)")
    assert dead == []


def test_nothing_is_embedded_from_elsewhere(pages, site):
    outside = [
        f"{page.relative_to(site)}: {one}" for page, links in pages.items() for one in links.embedded if "//" in one
    ]
    assert outside == []
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8", errors="replace")
        assert "url(http" not in text and "url(//" not in text and "@import" not in text, style


def test_every_public_symbol_is_in_the_inventory(site):
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        from api_pages import homes, missing
    finally:
        sys.path.pop(0)
    assert missing() == []
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ", 1)[0] for line in zlib.decompress(packed).decode().splitlines()}
    named = {full if not isinstance(value, type(sys)) else value.__name__ for full, (_, value) in homes().items()}
    assert named - listed == set()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome on this machine: the site was not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no look in a browser")
    with playwright.sync_playwright() as play:
        running = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser, site):
    """Open a page; afterwards nothing may have gone wrong or asked for the network."""
    faults, contexts = [], []

    def open_page(name, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.route(
            lambda url: not url.startswith(("file:", "data:", "blob:")),
            lambda route: (faults.append(f"{name} asked for {route.request.url}"), route.abort()),
        )
        page.on("console", lambda message: faults.append(f"{name}: console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"{name}: error {error}"))
        page.goto((site / f"{name}.html").as_uri())
        page.wait_for_load_state("load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_page_is_quiet_and_its_pictures_are_there(opened, name):
    page = opened(name)
    broken = page.evaluate(
        "Promise.all([...document.images].map(i => (i.loading = 'eager', i.decode().then(() => null, () => i.src))))"
        ".then(all => all.filter(Boolean))"
    )
    assert broken == []


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_narrow_screen(opened, name, scheme):
    page = opened(name, viewport={"width": 375, "height": 740}, has_touch=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.mark.browser
def test_search_works_without_network(opened):
    page = opened("search")
    page.goto(page.url + "?q=smallest_eigenvalue")
    page.wait_for_selector("#search-results li a", timeout=30_000)
    assert page.locator("#search-results li a").count() >= 1
    page.locator("#search-results li a").first.click()
    page.wait_for_load_state("load")
    assert "smallest_eigenvalue" in page.content()


@pytest.mark.browser
def test_formulas_are_drawn_with_the_local_font(opened):
    page = opened("theory")
    page.evaluate("document.fonts.ready")
    assert page.locator("math").count() > 100
    assert page.evaluate("document.fonts.check('16px \"STIX Two Math\"')")
    assert page.locator("math").nth(5).bounding_box()["width"] > 5
