"""The report in headless Chromium: what it shows, what it answers, and that nothing leaves it.

    pip install playwright axe-playwright-python

and a `chromium` on the path, such as Debian's, are what these tests need; without them they are skipped.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core import Explanation, write_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

COUNT = 120
SIDE = 32
CLASSES = ("cat", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>")


def explained() -> Explanation:
    """Of 120 grey images with three targets each: maps on the left half, in the middle and nowhere."""
    maps = np.zeros((COUNT, 3, SIDE, SIDE), dtype=np.float32)
    maps[:, 0, :, : SIDE // 2] = 1
    maps[:, 1, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 1
    probabilities = np.linspace(0.9, 0.1, COUNT)[:, None] * np.array([1, 0.1, 0.01])
    contributions = np.stack([np.linspace(-0.2, 0.5, COUNT)] * 3, axis=1).astype(np.float32)
    return Explanation(
        method="fusion-cam",
        layer="conv",
        model="Net",
        maps=maps,
        targets=np.tile(np.arange(3), (COUNT, 1)),
        scores=probabilities.astype(np.float32),
        probabilities=probabilities.astype(np.float32),
        class_probabilities=np.full((COUNT, 3), 1 / 3, dtype=np.float32),
        images=np.zeros((COUNT, 3, SIDE, SIDE), dtype=np.float32),
        image_channel_axis=1,
        evaluations=1,
        parts={"region": np.roll(maps, SIDE // 2, axis=3)},
        weights={"contribution_union": contributions, "probability_baseline": contributions * 0 + 0.1},
        titles={"region": "Score-CAM", "maps": "Fusion-CAM"},
        names=tuple(f"image-{number}" for number in range(COUNT)),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photographs = np.full((COUNT, 200, 300, 3), 128, dtype=np.uint8)
    own = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(own, explained(), list(photographs), CLASSES)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(1280, "light"), (400, "dark")], ids=["wide-light", "narrow-dark"])
def page(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    """The report, opened; a message on the console, an error or a request ends the test."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    opened = context.new_page()
    found: list[str] = []
    opened.on("console", lambda message: found.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: found.append(f"error: {error}"))
    opened.on("dialog", lambda dialog: (found.append("a dialog"), dialog.dismiss()))
    opened.on("request", lambda request: found.append(request.url) if request.url[:5] != "data:" else None)
    opened.goto(path.as_uri())
    opened.wait_for_selector("#card-0 img.map")
    yield opened
    context.close()
    assert found == [path.as_uri()]


def picture(page: Any, selector: str) -> np.ndarray:
    """What is to be seen of an element, as pixels (H, W, 3)."""
    page.wait_for_function("s => [...document.querySelectorAll(s + ' img')].every(each => each.complete)", arg=selector)
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")).astype(int)


def spread(pixels: np.ndarray) -> np.ndarray:
    """How far from grey each half is, left and right: a map's colour."""
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    width = colour.shape[1]
    return np.array([colour[:, width // 8 : 3 * width // 8].mean(), colour[:, 5 * width // 8 : 7 * width // 8].mean()])


def set_range(page: Any, selector: str, value: int) -> None:
    page.locator(selector).fill(str(value))


def names(page: Any) -> list[str]:
    return page.locator(".card:visible .name").all_text_contents()


LAST = COUNT - 1
"""Its contribution is above 0, so that its maps have colours."""


def open_last(page: Any) -> None:
    page.select_option("#order", "-c")
    page.locator(".card:visible button.open").first.click()
    assert page.text_content("#view-title") == f"image-{LAST}"


def test_the_slider_moves_pixels(page: Any) -> None:
    open_last(page)
    left, right = spread(picture(page, "#pane-first .sheet"))
    assert left > 60
    assert right < 2
    set_range(page, "#view-strength", 10)
    fainter, _ = spread(picture(page, "#pane-first .sheet"))
    assert 2 < fainter < left / 3
    set_range(page, "#view-strength", 0)
    assert (picture(page, "#pane-first .sheet")[10:-10, 10:-10] == 128).all()
    assert page.text_content("#view-strength-text") == "0 %"
    assert page.input_value("#strength") == "0"


def test_the_slider_moves_by_keys(page: Any) -> None:
    page.focus("#strength")
    page.keyboard.press("Home")
    assert page.text_content("#strength-text") == "0 %"
    page.keyboard.press("ArrowRight")
    assert page.text_content("#strength-text") == "1 %"


def test_stages_and_classes_are_switched(page: Any) -> None:
    open_last(page)
    page.select_option("#stage-first", label="Score-CAM")
    left, right = spread(picture(page, "#pane-first .sheet"))
    assert left < 2 < 60 < right
    page.select_option("#stage-first", label="Fusion-CAM")
    page.select_option("#target-first", label=CLASSES[2])
    assert spread(picture(page, "#pane-first .sheet")).max() < 2
    said = page.text_content("#pane-first .said")
    assert said == f"Fusion-CAM: {CLASSES[2]}, p = 0.0010; contribution 0.5000; the map is 0 everywhere"
    assert page.text_content("#pane-first .meaning").endswith(
        "gives the class 0.5000 more probability than the baseline."
    )
    page.select_option("#stage-first", label="Photograph alone")
    assert page.text_content("#pane-first .meaning") == ""
    assert page.locator("#pane-first .map").count() == 0


def test_two_are_compared_side_by_side(page: Any) -> None:
    open_last(page)
    assert not page.is_visible("#pane-second")
    page.click("#compare")
    assert page.get_attribute("#compare", "aria-pressed") == "true"
    first, second = (page.locator(f"#pane-{side}").bounding_box() for side in ("first", "second"))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]
    assert page.input_value("#target-second") == "1"
    page.select_option("#target-second", "0")
    page.select_option("#stage-second", label="Score-CAM")
    assert spread(picture(page, "#pane-first .sheet")).argmax() == 0
    assert spread(picture(page, "#pane-second .sheet")).argmax() == 1
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.documentElement.clientWidth")


def test_no_support_is_grey_and_said(page: Any) -> None:
    card = page.locator("#card-0")
    assert card.locator(".note").text_content() == "no support: −0.2000"
    assert spread(picture(page, "#card-0 .sheet")).max() < 2


def test_the_stage_of_all(page: Any) -> None:
    page.select_option("#order", "-c")
    page.wait_for_selector(f"#card-{LAST} img.map")
    assert spread(picture(page, f"#card-{LAST} .sheet")).argmax() == 0
    page.select_option("#stage", label="Score-CAM")
    assert spread(picture(page, f"#card-{LAST} .sheet")).argmax() == 1


def test_sorting(page: Any) -> None:
    assert names(page)[:2] == ["image-0", "image-1"]
    page.select_option("#order", "p")
    assert names(page)[0] == f"image-{LAST}"
    page.select_option("#order", "name")
    assert names(page)[:3] == ["image-0", "image-1", "image-2"]
    page.select_option("#order", "-c")
    assert names(page)[:2] == [f"image-{LAST}", f"image-{LAST - 1}"]


def test_filters(page: Any) -> None:
    page.fill("#words", "IMAGE-11")
    assert names(page) == [f"image-{number}" for number in (11, *range(110, 120))]
    assert page.text_content("#count") == f"11 of {COUNT} shown"
    page.fill("#words", "")
    page.fill("#least", "0.89")
    assert names(page) == ["image-0", "image-1"]
    page.select_option("#class", label=CLASSES[1])
    assert page.text_content("#count") == f"0 of {COUNT} shown"
    page.click("#all")
    assert page.text_content("#count") == f"{COUNT} of {COUNT} shown"
    page.select_option("#support", "no")
    assert names(page)[-1] == "image-34"  # whose contribution is the last below 0


def test_a_class_shows_its_own_maps(page: Any) -> None:
    page.select_option("#class", label=CLASSES[1])
    assert page.locator("#card-0 .label").text_content() == CLASSES[1]
    assert page.locator("#card-0 .value").text_content() == "p = 0.0900"


def test_only_what_is_near_is_drawn(page: Any) -> None:
    page.wait_for_timeout(300)
    drawn = page.locator(".card img.photograph").count()
    assert 0 < drawn < COUNT
    page.locator(f"#card-{LAST}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#card-{LAST} img.map")


def test_by_keyboard_alone(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.place") == "0"
    page.keyboard.press("Enter")
    assert page.text_content("#view-title") == "image-0"
    assert page.is_disabled("#previous")
    page.focus("#next")
    page.keyboard.press("Enter")
    assert page.text_content("#view-title") == "image-1"
    page.keyboard.press("Escape")
    page.wait_for_selector("#view", state="hidden")
    page.wait_for_function(
        "document.activeElement.dataset.place === '1'", timeout=5000
    )  # once it is told of the closing


def test_numbers_are_beside_the_large_view(page: Any) -> None:
    open_last(page)
    assert "Baseline" in page.text_content("#view-numbers")
    assert page.locator("#view-numbers table").count() == 3


def test_photographs_in_grey(page: Any) -> None:
    page.check("#grey")
    filtered = "getComputedStyle(document.querySelector('#card-0 .photograph')).filter"
    assert page.evaluate(filtered) == "grayscale(1)"
    assert page.is_checked("#view-grey")


def test_nothing_sticks_out(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("large", [False, True], ids=["page", "view"])
def test_axe_finds_nothing_serious(page: Any, large: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    if large:
        open_last(page)
        page.click("#compare")
    found = axe.run(page).response
    assert len(found["passes"]) > 20
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious]


def test_without_its_script_the_numbers_are_there(browser: Any, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(path.as_uri())
    assert "switched off here" in opened.text_content("noscript")
    assert opened.locator("#card-3 .value").text_content() == "p = 0.8798"
    context.close()


def test_a_script_that_slipped_in_is_not_run(browser: Any, path: Path, tmp_path: Path) -> None:
    """The policy of the page is what holds, were a name ever written down unescaped."""
    source = path.read_text(encoding="utf-8")
    tampered = tmp_path / "tampered.html"
    attack = "<img src=x onerror=\"document.title='run'\"><script>document.title = 'run'</script>"
    tampered.write_text(source.replace("<main>", f"<main>{attack}", 1), encoding="utf-8")
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(tampered.as_uri())
    opened.wait_for_selector("#card-0 img.map")
    assert opened.title() != "run"
    context.close()


def test_a_photograph_that_is_shown_whole(browser: Any, tmp_path: Path) -> None:
    """The map lies over the part that the network saw, in the middle of a wide photograph."""
    from fusioncam_core import Preprocessing

    one = replace(explained()[LAST : LAST + 1], maps=np.ones((1, 3, SIDE, SIDE), dtype=np.float32))
    photograph = Image.fromarray(np.full((100, 300, 3), 128, dtype=np.uint8))
    preprocessing = Preprocessing(size=(SIDE, SIDE), mean=0.0, std=255.0)
    own = write_report(tmp_path / "whole.html", one, [photograph], CLASSES, preprocessing=preprocessing)
    context = browser.new_context(reduced_motion="reduce")
    opened = context.new_page()
    opened.goto(own.as_uri())
    opened.locator("button.open").click()
    pixels = picture(opened, "#pane-first .sheet")
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    width = pixels.shape[1]
    assert colour[:, : width // 4].max() < 2
    assert colour[:, 3 * width // 4 :].max() < 2
    assert colour[20:-20, 2 * width // 5 : 3 * width // 5].min() > 60
    context.close()
