"""The page in a browser that has no network: drawn, alive, dark, on paper, on a small screen."""

from __future__ import annotations

import re
import shutil
import zlib

import pytest
from report_runs import make_run

from mfresnet.report import write_report

pytestmark = pytest.mark.browser
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")
FLAGS = ["--no-sandbox", "--no-first-run", *(f"--disable-{service}" for service in QUIET)]
READY = "html[data-drawn]"
PAPER = 687  # CSS pixels between the margins of A4


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome on this machine: the report was not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no look in a browser")
    with playwright.sync_playwright() as play:
        running = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser):
    """Open a report; afterwards nothing may have gone wrong or asked for the network."""
    faults, contexts = [], []

    def open_page(run, **options):
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1200, "height": 900}), **options)
        contexts.append(context)
        page = context.new_page()

        def route(route):
            faults.append(f"asked for {route.request.url}")
            route.abort()

        page.route(lambda url: not url.startswith(("file:", "data:", "blob:")), route)
        page.on("console", lambda message: faults.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error {error}"))
        page.on("dialog", lambda dialog: (faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(write_report(run).resolve().as_uri())
        page.wait_for_selector(READY, timeout=60_000, state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


DRAWN = """() => [...document.querySelectorAll('.plot')].map(plot => ({
    title: plot.getAttribute('aria-label'),
    width: plot.querySelector('.main-svg').getBoundingClientRect().width,
    height: plot.querySelector('.main-svg').getBoundingClientRect().height,
    points: [...plot.querySelectorAll('.scatterlayer path')].filter(p => p.getBoundingClientRect().width > 0).length,
    images: plot.querySelectorAll('.heatmaplayer image').length,
    inside: plot.querySelector('.main-svg').getBoundingClientRect().right
            <= plot.parentElement.getBoundingClientRect().right + 0.5,
}))"""


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (4, 3)])
@pytest.mark.parametrize("regression", [False, True])
def test_every_figure_is_drawn(opened, tmp_path, shape, regression):
    page = opened(make_run(tmp_path / "r", inputs=shape[0], outputs=shape[1], regression=regression))
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == int(page.evaluate("document.documentElement.dataset.drawn")) >= 8
    for figure in drawn:
        assert figure["width"] > 300 and figure["height"] > 150, figure
        assert figure["points"] >= 1, figure
        assert figure["inside"], figure
    if shape[0] > 1:
        assert all(figure["images"] for figure in [drawn[0], *drawn[3:5]])


PLACES = "[...document.querySelectorAll('.plot')].slice(5, 7).map(p => p.data.map(t => t.x))"


def test_slider_moves_the_points_and_play_stops_at_the_end(opened, tmp_path):
    page = opened(make_run(tmp_path / "r"))
    before = page.evaluate(PLACES)
    slider = page.locator(".slider input")
    slider.evaluate("node => { node.value = 1.5; node.dispatchEvent(new Event('input')); }")
    page.wait_for_function("() => document.querySelector('.slider output').textContent === '0.25'")
    after = page.evaluate(PLACES)
    for k in (0, 1):
        moved = [a != b for a, b in zip(before[k], after[k], strict=True)]
        assert moved[-2:] == [True, True] and not any(moved[:-2])  # the points move, their surroundings stay
    mean = [sum(rows[-1]) / len(rows[-1]) for rows in (before[1], after[1])]
    assert mean[0] - mean[1] == pytest.approx(2 * 0.75, abs=1e-3)  # the fixture moves two units from s = 0 to 1
    slider.evaluate("node => { node.value = 5.9; node.dispatchEvent(new Event('input')); }")
    page.click(".play")
    page.wait_for_function("() => document.querySelector('.slider input').value === '6'")
    page.wait_for_selector(".play:not(.playing)")
    assert page.locator(".slider output").text_content() == "1.00"


def test_choices_change_both_curves(opened, tmp_path):
    page = opened(make_run(tmp_path / "r"))
    state = """() => [...document.querySelectorAll('.plot')].slice(1, 3).map(
        p => [p.layout.xaxis.title.text, p.layout.xaxis.type, p.layout.yaxis.type, p.data[0].x.at(-1)])"""
    assert page.evaluate(state) == [["step", "linear", "log", 70]] * 2
    page.get_by_text("training time", exact=True).click()
    page.get_by_text("log–log", exact=True).click()
    assert page.evaluate(state) == [["training time, in 1/β²", "log", "log", 3.5]] * 2
    page.get_by_text("linear", exact=True).click()
    assert page.evaluate(state) == [["training time, in 1/β²", "linear", "linear", 3.5]] * 2


def test_dark_scheme_recolours_page_and_figures(opened, tmp_path):
    page = opened(make_run(tmp_path / "r"), color_scheme="dark")
    look = """() => [getComputedStyle(document.body).backgroundColor,
        ...[...document.querySelectorAll('.plot')].map(p => p.querySelector('.main-svg').style.background),
        document.querySelectorAll('.plot')[1].data[0].line.color]"""
    dark = page.evaluate(look)
    assert all(brightness(colour) < 60 for colour in dark[:-1])
    page.emulate_media(color_scheme="light")
    page.wait_for_function("old => document.querySelectorAll('.plot')[1].data[0].line.color !== old", arg=dark[-1])
    light = page.evaluate(look)
    assert all(brightness(colour) > 240 for colour in light[:-1])


def brightness(colour):
    """Mean of the three channels of a computed colour."""
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3


def test_paper_shows_light_figures_that_fit(opened, tmp_path):
    page = opened(make_run(tmp_path / "r"), color_scheme="dark", viewport={"width": PAPER, "height": 900})
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function("() => 'paper' in document.documentElement.dataset")
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert all(figure["inside"] for figure in page.evaluate(DRAWN))
    assert brightness(page.evaluate("document.querySelector('.main-svg').style.background")) > 240
    assert not page.locator(".controls").first.is_visible()
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_function("() => !('paper' in document.documentElement.dataset)")
    assert brightness(page.evaluate("document.querySelector('.main-svg').style.background")) < 60


def test_printing_keeps_the_size_of_the_type(opened, tmp_path):
    """Chromium silently shrinks a whole page, to two thirds, when something on it is too wide for the paper."""
    pdf = opened(make_run(tmp_path / "r")).pdf(format="A4")
    streams = re.findall(rb"FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    first = next(text for text in map(zlib.decompress, streams) if b" cm" in text[:100])
    page, content = (float(scale) for scale in re.findall(rb"([\d.]+) 0 0 -?[\d.]+ [\d. ]+cm", first)[:2])
    assert page * content == pytest.approx(0.75, rel=1e-3)  # points of a CSS pixel


def test_narrow_screen_does_not_scroll_sideways(opened, tmp_path):
    page = opened(make_run(tmp_path / "r", inputs=4, outputs=3), viewport={"width": 360, "height": 740}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert all(figure["inside"] for figure in page.evaluate(DRAWN))
    page.set_viewport_size({"width": 900, "height": 740})
    second = "document.querySelectorAll('.plot')[1].querySelector('svg')"  # the first shares its row with the numbers
    page.wait_for_function(f"() => {second}.getBoundingClientRect().width > 350")


def test_hostile_names_run_no_script(opened, tmp_path):
    bad = "</script><img src=x onerror=alert(1)><a href='javascript:alert(2)'>%{x}@ink"
    page = opened(make_run(tmp_path / "r", name=bad, classes=[bad, "@class-0"]))
    assert page.locator("header .topic").text_content() == bad
    shown = page.locator(".plot").nth(0).locator(".legendtext").first.text_content()
    assert shown.startswith("</script><img")
    assert page.locator("main a, main img").count() == 0


def test_page_without_figures_is_quiet(opened, tmp_path):
    run = make_run(tmp_path / "r")
    (run / "metrics.jsonl").unlink()
    (run / "arrays" / "portrait.safetensors").unlink()
    page = opened(run)
    assert page.locator(".plot").count() == 0
    assert page.get_by_text("metrics.jsonl is missing.").is_visible()
