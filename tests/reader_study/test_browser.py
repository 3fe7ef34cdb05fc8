"""The pages in Debian's chromium: mouse, keys, back, reload, two tabs, double click, no network, a phone, 200 % zoom."""

import os
import shutil
import sqlite3

import pytest

from tests.reader_study.conftest import NUM, free_port, start

pytest.importorskip("uvicorn", reason="extra [web] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=20_000)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
TOTAL = 2 * NUM + 4
MISSING = "chromium is not installed (apt-get install chromium)"
# Where CI is set, .ci/run for one, a browser is there or these tests fail: skipped ones would never be missed.
REQUIRED = os.environ.get("CI", "") not in ("", "0", "false")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason=MISSING)]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.fail(MISSING)
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(make_study, links):
    """A study that is served: (folder, addresses of the readers' links)."""
    folder, port = make_study(12), free_port()
    server = start(folder, port)
    yield folder, [f"http://127.0.0.1:{port}{link}" for link in links(folder)]
    server.terminate()
    server.wait(10)


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    outside = []
    page.on(
        "request", lambda request: outside.append(request.url) if "127.0.0.1" not in request.url else None
    )
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    assert not outside  # nothing is asked of any other host
    assert not errors
    context.close()


def stored(folder, reader):
    lines = sqlite3.connect(folder / "answers.sqlite3").execute(
        "SELECT position, answer, client_ms, hidden_ms, views, detail FROM answers WHERE reader = ? ORDER BY position", (reader,)
    )  # fmt: skip
    return lines.fetchall()


def begin(page, link):
    """To the first practice image."""
    page.goto(link)
    assert page.url.endswith("/consent")  # the token has left the address bar
    page.get_by_label("Your specialty").select_option("resident")
    page.get_by_label("Years of experience").fill("3")
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="Begin practice").click()
    ready(page)


def ready(page, label=None):
    # Not wait_for_function: it evaluates in the page, which its content security policy forbids.
    if label:
        expect(page.locator("#progress")).to_have_text(label)
    expect(page.locator("#real")).to_have_attribute("aria-disabled", "false")
    page.wait_for_timeout(350)  # the dead time


def through_practice(page):
    for number in range(1, 5):
        ready(page, f"Practice image {number} of 4")
        page.keyboard.press("r")
    page.get_by_role("button", name="Begin the study").click()
    ready(page, f"Image 1 of {2 * NUM}")


def test_a_whole_reading_with_the_mouse(page, study):
    begin(page, study[1][0])
    for number in range(4):
        ready(page, f"Practice image {number + 1} of 4")
        page.get_by_role("button", name="Real").click()
    page.get_by_role("button", name="Begin the study").click()
    for number in range(2 * NUM):
        ready(page, f"Image {number + 1} of {2 * NUM}")
        page.get_by_role("button", name="Synthetic" if number % 2 else "Real").click()
    page.wait_for_url("**/end")
    assert page.get_by_role("heading", name="Thank you").is_visible()
    lines = stored(study[0], 1)
    assert [line[1] for line in lines] == ["real"] * 4 + ["real", "synthetic"] * NUM
    assert all(300 <= line[2] < 60_000 and line[4] == 1 for line in lines)


def test_a_whole_reading_with_keys_alone(page, study):
    page.goto(study[1][1])
    page.keyboard.press("Tab")
    page.keyboard.type("resi")
    page.keyboard.press("Tab")
    page.keyboard.type("12")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/instructions")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for number in range(4):
        ready(page, f"Practice image {number + 1} of 4")
        page.keyboard.press("1" if number % 2 else "S")
    page.wait_for_selector("#start:focus")
    page.keyboard.press("Enter")
    for number in range(2 * NUM):
        ready(page, f"Image {number + 1} of {2 * NUM}")
        page.keyboard.press("2" if number % 2 else "r")
    page.wait_for_url("**/end")
    assert [line[1] for line in stored(study[0], 2)][4:] == ["real", "synthetic"] * NUM


def test_back_and_reload_show_nothing_earlier(page, study):
    begin(page, study[1][2])
    through_practice(page)
    page.keyboard.press("s")
    ready(page, f"Image 2 of {2 * NUM}")
    shown = page.locator("#frame img").get_attribute("src")
    page.reload()
    ready(page, f"Image 2 of {2 * NUM}")
    assert page.locator("#frame img").get_attribute("src") == shown
    page.go_back()
    ready(page, f"Image 2 of {2 * NUM}")
    page.keyboard.press("r")
    ready(page, f"Image 3 of {2 * NUM}")
    last = stored(study[0], 3)[-1]
    assert (last[0], last[1]) == (1, "real") and last[4] >= 2  # the reload is noted


def test_double_click_and_held_key_answer_once(page, study):
    begin(page, study[1][3])
    through_practice(page)
    page.get_by_role("button", name="Real").dblclick()
    ready(page, f"Image 2 of {2 * NUM}")
    page.keyboard.down("s")
    for _ in range(8):
        page.keyboard.down("s")  # repeats, as a held key does
    page.keyboard.up("s")
    ready(page, f"Image 3 of {2 * NUM}")
    page.wait_for_timeout(500)
    assert [line[1] for line in stored(study[0], 4)][4:] == ["real", "synthetic"]


def test_two_tabs(page, study):
    begin(page, study[1][4])
    through_practice(page)
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Begin the study").click()
    ready(other, f"Image 1 of {2 * NUM}")
    page.bring_to_front()
    page.keyboard.press("r")
    ready(page, f"Image 2 of {2 * NUM}")
    other.bring_to_front()
    other.keyboard.press("s")
    ready(other, f"Image 2 of {2 * NUM}")
    assert "answered already" in other.locator("#status").text_content()
    assert [line[1] for line in stored(study[0], 5)][4:] == ["real"]


def test_no_network_in_the_middle(page, study):
    begin(page, study[1][5])
    through_practice(page)
    page.context.set_offline(True)
    page.keyboard.press("s")
    expect(page.locator("#status")).to_contain_text("No connection")
    page.keyboard.press("r")  # nothing: the first answer is still on its way
    page.wait_for_timeout(800)
    page.context.set_offline(False)
    ready(page, f"Image 2 of {2 * NUM}")
    assert page.locator("#status").text_content() == ""
    assert [line[1] for line in stored(study[0], 6)][4:] == ["synthetic"]


def test_hidden_time_is_noted(page, study):
    begin(page, study[1][6])
    through_practice(page)
    hide = "value => { Object.defineProperty(document, 'hidden', {value, configurable: true}); document.dispatchEvent(new Event('visibilitychange')) }"
    page.evaluate(hide, True)
    page.wait_for_timeout(700)
    page.evaluate(hide, False)
    page.keyboard.press("r")
    ready(page, f"Image 2 of {2 * NUM}")
    line = stored(study[0], 7)[-1]
    assert 600 < line[3] < line[2] and '"hidden_count": 1' in line[5]


def test_zoom_has_limits(page, study):
    begin(page, study[1][7])
    box = page.locator("#frame").bounding_box()
    for _ in range(9):
        page.get_by_role("button", name="Zoom in").click()
    scale = page.evaluate("new DOMMatrix(getComputedStyle(document.querySelector('#frame img')).transform).a")
    assert scale == 4 and page.locator("#frame").bounding_box() == box
    page.keyboard.press("0")
    assert (
        page.evaluate("new DOMMatrix(getComputedStyle(document.querySelector('#frame img')).transform).a")
        == 1
    )
    page.keyboard.press("r")
    ready(page, "Practice image 2 of 4")
    assert '"zoom": 4.0' in stored(study[0], 8)[0][5]


def fits(page):
    """Nothing is wider than the window, and both buttons can be seen or reached by scrolling."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("real", "synthetic"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["height"] >= 44 and box["width"] >= 44
    assert page.evaluate("document.getElementById('real').getBoundingClientRect().bottom <= innerHeight + 1")


def test_twice_the_size(browser, study):
    """200 % zoom of a 1280 x 800 window: half as many CSS pixels."""
    context = browser.new_context(
        viewport={"width": 640, "height": 400}, screen={"width": 1280, "height": 800}, device_scale_factor=2
    )
    page = context.new_page()
    begin(page, study[1][8])
    fits(page)
    context.close()


def test_a_phone_is_refused_where_it_is_not_allowed(browser, study):
    context = browser.new_context(
        viewport={"width": 390, "height": 844},
        screen={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    page.goto(study[1][9])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("Your specialty").select_option("resident")
    page.get_by_label("Years of experience").fill("3")
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Continue").tap()
    page.get_by_role("link", name="Begin practice").tap()
    page.get_by_text("too small for judging").wait_for()
    assert not page.locator("#reading").is_visible() and stored(study[0], 10) == []
    # Where study.json has smallest_screen 0, the same page is used.
    page.route("**/read", lambda route: route.fulfill(
        response=(answer := route.fetch()), body=answer.text().replace('data-smallest="600"', 'data-smallest="0"')
    ))  # fmt: skip
    page.reload()
    ready(page)
    fits(page)
    page.get_by_role("button", name="Real").tap()
    ready(page, "Practice image 2 of 4")
    context.close()


def test_labels_and_contrast(page, study):
    begin(page, study[1][10])
    assert page.get_by_alt_text("Retinal image to be judged").count() == 1
    assert page.locator("[aria-live=polite]").text_content() == "Practice image 1 of 4"
    assert page.get_by_role("group", name="Is this a real photograph or a synthetic image?").count() == 1
    contrast = """element => {
        const luminance = (text) => {
            const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        let behind = element;
        while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
        const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(luminance).sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    }"""
    for place in ("#real", "#real small", "#whole", "#progress"):
        assert page.locator(place).evaluate(contrast) >= 4.5, place
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
