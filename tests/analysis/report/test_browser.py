"""The report in a real browser, from disk: Debian's chromium (apt-get install chromium chromium-driver)."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PHONE, SCREEN = 390, 1280  # pixels
CONTRAST = 4.5  # of text, WCAG 2.2 level AA
SAMPLES = (
    "body",
    "h2",
    ".lead",
    ".kicker",
    "caption",
    "tbody td a",
    "tbody tr.other td",
    "footer",
    ".nothing",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """A headless chromium that records its console and its requests."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium with its driver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


def show(browser: webdriver.Chrome, page: Path, width: int = SCREEN, scheme: str = "light") -> None:
    """Open a page from disk, at a width and with a colour scheme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    features.append({"name": "prefers-reduced-motion", "value": "reduce"})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get(page.resolve().as_uri())


def some_pages(report: Path) -> list[Path]:
    """Pages of each kind: all tables, figures and experiments; a finished, a running and a damaged run."""
    runs = sorted((report / "runs").glob("*.html"))
    kinds = [next(p for p in runs if word in p.name) for word in ("add-fa-mini", "add-pr-mini", "broken")]
    lists = [report / "index.html", report / "runs" / "index.html"]
    return [*lists, *sorted(report.glob("[tfe]*/*.html")), *kinds]


def requested(browser: webdriver.Chrome) -> set[str]:
    """Addresses that were asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return set(sent)


def test_pages_load_from_disk_alone_and_without_a_word_on_the_console(
    browser: webdriver.Chrome, report: Path
) -> None:
    requested(browser)
    for page in some_pages(report):
        show(browser, page)
        browser.execute_script("for (const image of document.images) image.loading = 'eager'")
        place = browser.find_element(By.TAG_NAME, "nav").value_of_css_property("position")
        assert place == "sticky", f"{page} has no style"
        sizes = browser.execute_async_script(
            "const done = arguments[0]; Promise.allSettled([...document.images].map(i => i.decode()))"
            ".then(() => done([...document.images].map(i => i.naturalWidth)))"
        )
        assert all(size > 0 for size in sizes), page
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"] == []
    asked = requested(browser)
    assert any(address.endswith("index.html") for address in asked)
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


def test_every_link_of_the_first_page_and_of_a_table_opens_a_page_that_is_there(
    browser: webdriver.Chrome, report: Path
) -> None:
    addresses: set[str] = set()
    for page in (report / "index.html", report / "tables" / "table-4.html"):
        show(browser, page)
        addresses |= set(browser.execute_script("return [...document.links].map(a => a.href)"))
    assert len(addresses) > 30
    for address in addresses:
        if ".html" in address:
            browser.get(address)
            title, there = browser.execute_script(
                "const id = location.hash.slice(1);"
                "return [document.title, id === '' || document.getElementById(id) !== null]"
            )
            assert title and there, address


@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_no_page_is_wider_than_the_window(browser: webdriver.Chrome, report: Path, width: int) -> None:
    for page in some_pages(report):
        show(browser, page, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width, page
    if width == PHONE:  # the tables are: they scroll by themselves, from the keyboard too
        show(browser, report / "tables" / "table-1.html", width)
        box = browser.find_elements(By.CSS_SELECTOR, "#table-1 .scroll")[-1]
        assert browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", box)
        box.send_keys(Keys.ARROW_RIGHT)
        moved = "const b = arguments[0], d = arguments[1]; setTimeout(() => d(b.scrollLeft), 400)"
        assert browser.execute_async_script(moved, box) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "columns"), [(PHONE, 3), (1200, 8)])
def test_the_verdicts_show_what_matters_first_and_a_shadow_where_there_is_more(
    browser: webdriver.Chrome, report: Path, width: int, columns: int, scheme: str
) -> None:
    show(browser, report / "index.html", width, scheme)
    box = browser.find_element(By.CSS_SELECTOR, "#verdicts .scroll")
    right = box.rect["x"] + box.rect["width"]
    heads = box.find_elements(By.CSS_SELECTOR, "thead th")
    assert [head.text for head in heads[:4]] == ["table", "row", "Δ here", "verdict"]
    assert all(head.rect["x"] + head.rect["width"] <= right for head in heads[:columns])
    paper = colours(browser, browser.find_element(By.TAG_NAME, "body"))[1]
    ends = []
    for place in (0, 9999):
        browser.execute_script("arguments[0].scrollLeft = arguments[1]", box, place)
        shown = np.asarray(Image.open(io.BytesIO(box.screenshot_as_png)).convert("RGB")).astype(float)
        edges = [np.median(shown[:, x], axis=0) for x in (1, -2)]
        ends.append([bool(np.abs(edge - paper).max() > 20) for edge in edges])
    assert ends == [[False, True], [True, False]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_the_key_figure_is_whole_and_as_dark_as_the_page(
    browser: webdriver.Chrome, report: Path, width: int, scheme: str
) -> None:
    show(browser, report / "index.html", width, scheme)
    picture = browser.find_element(By.CSS_SELECTOR, ".key img")
    browser.execute_async_script("arguments[0].decode().then(arguments[1])", picture)
    box = picture.find_element(By.XPATH, "..")
    assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", box)
    assert picture.rect["x"] >= 0 and picture.rect["x"] + picture.rect["width"] <= width
    assert picture.rect["width"] > min(0.65 * width, 400)
    shown = np.asarray(Image.open(io.BytesIO(picture.screenshot_as_png)).convert("RGB")).astype(float)
    ground, paper = (
        np.median(shown, axis=(0, 1)),
        colours(browser, browser.find_element(By.TAG_NAME, "body"))[1],
    )
    assert np.abs(ground - (255.0 if scheme == "light" else paper)).max() <= 2
    assert np.ptp(shown, axis=(0, 1)).max() > 150  # there is something on it


def test_the_contents_follow_on_the_screen_and_fold_away_on_a_phone(
    browser: webdriver.Chrome, report: Path
) -> None:
    table = report / "tables" / "table-4.html"
    show(browser, table)
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    here = browser.find_element(By.CSS_SELECTOR, 'nav [aria-current="page"]')
    assert here.text == "4 Operators" and here.is_displayed() and in_window(browser, here)
    browser.find_element(By.CSS_SELECTOR, "nav .top").click()
    assert browser.execute_script("return window.scrollY") == 0
    show(browser, table, PHONE)
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    bar, link = (browser.find_element(By.CSS_SELECTOR, f"nav {name}") for name in ("summary", "li a"))
    assert in_window(browser, bar) and bar.text == "Contents" and not link.is_displayed()
    assert bar.rect["height"] <= 60
    bar.click()
    part = browser.find_element(By.CSS_SELECTOR, "nav .onpage a")
    assert link.is_displayed() and part.is_displayed()
    part.click()
    assert not link.is_displayed()
    wanted = browser.find_element(By.ID, browser.execute_script("return location.hash.slice(1)"))
    assert in_window(browser, wanted)


def in_window(browser: webdriver.Chrome, element: WebElement) -> bool:
    """Whether the top of an element is in the part of the page that is seen."""
    top: float = browser.execute_script("return arguments[0].getBoundingClientRect().top", element)
    return 0 <= top < 900


def column(table: WebElement, number: int) -> list[str]:
    """The texts of a column of a sortable table, from top to bottom."""
    return [cell.text for cell in table.find_elements(By.CSS_SELECTOR, f'[data-col="{number}"]')]


def button(table: WebElement, number: int) -> WebElement:
    return table.find_elements(By.CSS_SELECTOR, "thead th")[number].find_element(By.TAG_NAME, "button")


def order(table: WebElement, number: int) -> str | None:
    return table.find_elements(By.CSS_SELECTOR, "thead th")[number].get_dom_attribute("aria-sort")


def test_a_click_sorts_a_table_of_the_paper_by_its_numbers_and_keeps_the_lines_of_a_row_together(
    browser: webdriver.Chrome, report: Path
) -> None:
    show(browser, report / "tables" / "table-4.html")
    table = browser.find_elements(By.CSS_SELECTOR, "#table-4 table")[-1]
    labels = column(table, 0)
    assert labels == ["baseline", "+ iFA", "× iFA", "⊕ iFA", "+ iPR", "× iPR"]
    button(table, 2).click()
    assert order(table, 2) == "ascending"
    assert column(table, 0) == ["× iFA", "baseline", "+ iFA", "⊕ iFA", "+ iPR", "× iPR"]  # missing ones last
    button(table, 2).click()
    assert order(table, 2) == "descending"
    assert column(table, 0) == ["+ iFA", "baseline", "× iFA", "⊕ iFA", "+ iPR", "× iPR"]
    group = table.find_elements(By.TAG_NAME, "tbody")[0]
    lines = [line.text for line in group.find_elements(By.CSS_SELECTOR, "th.what")]
    assert lines[:5] == ["paper", "ours", "Δ, 3 pairs", "interval by", "row by itself"]
    assert "verdict" in lines and lines[-1] == "leaves up to"
    button(table, 2).click()
    assert order(table, 2) == "none" and column(table, 0) == labels


@pytest.mark.parametrize("key", [Keys.ENTER, Keys.SPACE])
def test_the_keyboard_sorts_the_runs_and_only_one_column_says_so(
    browser: webdriver.Chrome, report: Path, key: str
) -> None:
    show(browser, report / "runs" / "index.html")
    table = browser.find_element(By.CSS_SELECTOR, "#runs table")
    button(table, 0).send_keys(key)
    browser.switch_to.active_element.send_keys(Keys.TAB + Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.text == "seed" and focused.value_of_css_property("outline-style") == "solid"
    focused.send_keys(key)
    assert [order(table, number) for number in range(7)].count("none") == 6 and order(table, 2) == "ascending"
    seeds = column(table, 2)
    known = [int(text) for text in seeds if text != "unknown"]
    assert known == sorted(known) and seeds[-1] == "unknown" and known[0] == 0 and known[-1] == 2


def test_without_javascript_everything_is_there_unsorted(browser: webdriver.Chrome, report: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, report / "tables" / "table-4.html")
        assert browser.find_elements(By.CSS_SELECTOR, "th button") == []
        rows = browser.find_elements(By.CSS_SELECTOR, "#table-4 .groups tbody")
        assert len(rows) == 6 and "43.30" in rows[1].text
        browser.find_element(By.CSS_SELECTOR, "nav summary").click()
        assert browser.find_element(By.CSS_SELECTOR, "nav li a").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_first_key_leads_past_the_navigation(browser: webdriver.Chrome, report: Path) -> None:
    show(browser, report / "index.html")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the content" and skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.tag_name == "main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: webdriver.Chrome, report: Path, scheme: str) -> None:
    measured = 0
    table = report / "tables" / "table-4.html"
    for page in (
        report / "index.html",
        table,
        next((report / "runs").glob("broken*"), report / "index.html"),
    ):
        show(browser, page, scheme=scheme)
        for selector in (*SAMPLES, ".warnings h2", ".warnings li", "dt", "nav a", "pre"):
            for element in browser.find_elements(By.CSS_SELECTOR, selector)[:1]:
                ink, paper = colours(browser, element)
                assert contrast(ink, paper) >= CONTRAST, (selector, ink, paper)
                measured += 1
    assert measured >= 12
    show(browser, report / "index.html", scheme=scheme)
    dark = luminance(colours(browser, browser.find_element(By.TAG_NAME, "body"))[1]) < 0.1
    assert dark is (scheme == "dark")


COLOURS = """
const numbers = text => text.match(/[\\d.]+/g).map(Number);
let node = arguments[0], paper = [0, 0, 0, 0];
const ink = numbers(getComputedStyle(node).color);
while (node && (paper.length > 3 && paper[3] === 0)) {
  paper = numbers(getComputedStyle(node).backgroundColor);
  node = node.parentElement;
}
return [ink.slice(0, 3), paper.slice(0, 3)];
"""


def colours(browser: webdriver.Chrome, element: WebElement) -> tuple[list[float], list[float]]:
    """Computed colours (0 to 255) of an element's text and of what is behind it."""
    ink, paper = browser.execute_script(COLOURS, element)
    return ink, paper


def luminance(colour: list[float]) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def contrast(a: list[float], b: list[float]) -> float:
    """Contrast ratio as WCAG defines it, 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.01)


def test_what_is_folded_away_is_on_paper_too(browser: webdriver.Chrome, report: Path) -> None:
    (page,) = (report / "runs").glob("csp-fast.add-fa-mini-s0-*.html")
    show(browser, page)
    summary = browser.find_elements(By.TAG_NAME, "summary")[-1]
    assert summary.text == "Configuration, in full"
    config = browser.find_elements(By.CSS_SELECTOR, "details pre")[0]
    assert not config.is_displayed()
    summary.send_keys(Keys.ENTER)
    assert config.is_displayed() and '"lr0"' in config.text
    browser.refresh()
    printed: dict[str, Any] = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 10_000
    opened = browser.execute_script("return [...document.querySelectorAll('details')].every(d => d.open)")
    assert opened
