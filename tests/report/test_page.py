"""The page in a real browser: headless chromium at a desk's and a phone's width, light, dark and on paper."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser import Page, browser, chromium
from results_tree import report, write_results

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs chromium (Debian: apt install chromium)")
SMALL = {"sums": 12, "a-benchmark-with-a-rather-long-name": 8}
OVERFLOWING = """[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest(".scroll") && !e.closest("svg") && !e.closest(".skip")).map(e => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of one variant, of three, and of one whose every text is hostile."""
    found = {}
    wanted: dict[str, dict[str, Any]] = {
        "one": {"variants": {"quickstart": 0.4}},
        "three": {"variants": {"quickstart": 0.4, "slow": 0.3, "without-length-reward": 0.0}},
        "hostile": {"variants": {"quickstart": 0.4}, "hostile": True},
    }
    for name, options in wanted.items():
        folder = tmp_path_factory.mktemp(name)
        report(folder, write_results(folder, problems=SMALL, **options))
        found[name] = folder / "report" / "index.html"
    return found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["one", "three", "hostile"])
def test_fits_its_window_and_asks_for_nothing(page, reports, name, width):
    page.open(reports[name], width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    assert page.errors == []
    assert [url for url in page.requests if url != reports[name].as_uri() and not url.startswith("data:")] == []


def test_hostile_texts_run_nothing_and_add_no_element(page, reports):
    page.open(reports["hostile"])
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.title") == "GRPO training of a maths reasoning model"
    assert page.evaluate("document.querySelectorAll('script, img, iframe, [onload], [onerror]').length") == 0
    shown = page.evaluate("document.body.innerText")
    assert "<script>document.title='owned'</script>" in shown
    assert "{{ 7*7 }} $x^2$ \u2400\u241b[31m <U+202E> evil" in shown
    assert "\u202e" not in shown
    # the policy forbids scripts even if one were there
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    assert page.evaluate("document.title") == "GRPO training of a maths reasoning model"


def test_dark_differs_from_light_and_neither_is_blank(page, reports, tmp_path):
    colours = {}
    for dark in (False, True):
        page.open(reports["one"], dark=dark)
        page.screenshot(tmp_path / f"{dark}.png", full=False)
        assert (tmp_path / f"{dark}.png").stat().st_size > 20_000
        colours[dark] = page.evaluate(
            """[getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector("#training svg text")).fill,
                getComputedStyle(document.querySelector("#training svg path[style*=s0]")).stroke]"""
        )
    assert all(light != dark for light, dark in zip(colours[False], colours[True], strict=True))


def test_every_text_has_the_contrast_that_wcag_asks_for(page, reports):
    contrast = """[...document.querySelectorAll("body :not(svg):not(svg *)")].filter(
        e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())).map(e => {
        const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => { v /= 255;
            return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
        let p = e; while (p && /rgba\\(.*, 0\\)/.test(getComputedStyle(p).backgroundColor)) p = p.parentElement;
        const [a, b] = [getComputedStyle(e).color, getComputedStyle(p || document.body).backgroundColor].map(light);
        return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 200)] }).sort((a, b) => a[0] - b[0])[0]"""
    for dark in (False, True):
        page.open(reports["three"], dark=dark)
        lowest = page.evaluate(contrast)
        assert lowest[0] >= 4.5, lowest


def test_plots_and_tables_are_labelled(page, reports):
    page.open(reports["three"])
    assert page.evaluate("document.querySelectorAll('figure svg').length") > 15
    assert page.evaluate("[...document.querySelectorAll('svg')].filter(e => !e.getAttribute('aria-label')).length") == 0
    assert (
        page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => !e.getAttribute('aria-label')).length")
        == 0
    )
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    broken = """[...document.querySelectorAll("nav a, .skip")].filter(a => !document.querySelector(a.hash)).length"""
    assert page.evaluate(broken) == 0


def test_prints_on_paper_white(page, reports):
    page.open(reports["one"], dark=True, media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()") == "#fcfbf8"
    assert page.pdf().startswith(b"%PDF")
