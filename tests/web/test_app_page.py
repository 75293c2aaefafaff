"""The page in a real browser: one person's whole way, two people at once, hostile prompts, and phone and desktop widths.

Needs Debian's `chromium` and the test group's playwright, which drives it and downloads no browser of its own; skips without them.
UF_FGTG_SCREENSHOTS=DIR keeps the screenshots that are taken at both widths.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations import PromptRefiner
from helpers import synthetic_runs
from helpers.page_server import served
from helpers.trained_runs import make_run

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium): the page is not driven"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright (uv sync --group test): the page is not driven")
WAIT_MS = 120_000  # for a machine that does other things as well; nothing here waits without need
INJECTIONS = ('<img src=x onerror="window.hacked=1">', "<script>window.hacked=1</script>", "{{7*7}} &lt;b&gt; </p><b>bold</b>")


@pytest.fixture(scope="module")
def refiner(tmp_path_factory, small_backbones) -> PromptRefiner:
    made = make_run(tmp_path_factory.mktemp("outputs"), small_backbones)
    return PromptRefiner.from_run(made, backbones=small_backbones, device="cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("browsed")
    hostile = [f"{INJECTIONS[0]} cat", "a castle at sunset", "an owl on a beach"]
    for settings in ({}, {"use_afe": False}):
        for seed in (0, 1):
            synthetic_runs.write_cell(made, settings, seed, synthetic_runs.known_effect, num_prompts=3, coarse=hostile)
    synthetic_runs.write_cell(made, {"prompt_len": 10}, 0, num_prompts=2, finish=False, pictures=False).fail(synthetic_runs.FAILURE)
    return made


@pytest.fixture(scope="module")
def address(refiner, runs) -> Iterator[str]:
    with served(refiner, runs) as where:
        yield where


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Without the sandbox, so that it starts as root and in containers: it sees nothing but this test's own page.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def person(browser, address: str, width: int = 1280, height: int = 900) -> Iterator:
    """A page in a browser context of its own. At the end nothing was said against it on the console, and no foreign address asked for."""
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "blob:", "data:")) else complaints.append(request.url))
    page.goto(address)
    yield page
    assert complaints == []
    context.close()


def expect(locator):
    playwright.expect.set_options(timeout=WAIT_MS)
    return playwright.expect(locator)


def wait_for_step(page, number: int) -> list[str]:
    """The cards' texts, once step `number` is shown with all its pictures."""
    expect(page.locator("#status")).to_have_text(f"Step {number}: 3 new candidates.")
    expect(page.locator("#cards .picture img")).to_have_count(3)
    expect(page.locator("#present-picture img")).to_have_count(1)
    return page.locator("#cards .text").all_text_contents()


def refined(candidates) -> list[str]:
    return [candidate.refined for candidate in candidates]


def test_a_person_types_picks_goes_back_redraws_rewrites_compares_and_takes_the_history_home(browser, address, refiner):
    with person(browser, address) as page:
        page.locator("#prompt").fill("a cat")
        page.keyboard.press("Enter")
        first = wait_for_step(page, 1)
        assert first == refined(refiner.refine("a cat"))
        assert page.locator("#cards .card:first-child .new").all_text_contents() == [first[0].removeprefix("a cat")]
        drawn = page.locator("#cards .picture img").first.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert drawn == [64, 64]

        page.locator("#cards .pick").nth(1).click()
        second = wait_for_step(page, 2)
        assert second == refined(refiner.refine(first[1])) and page.locator("#present").text_content() == first[1]
        page.keyboard.press("3")
        third = wait_for_step(page, 3)
        assert third == refined(refiner.refine(second[2])) and page.locator("#prompt").input_value() == second[2]

        page.keyboard.press("b")
        assert wait_for_step(page, 2) == second
        page.locator("#back").click()
        assert wait_for_step(page, 1) == first and page.locator("#back").is_disabled()

        page.locator("#seed").fill("7")
        page.keyboard.press("Enter")
        assert wait_for_step(page, 2) == refined(refiner.refine("a cat", seed=7))
        page.locator("#redraw").click()
        assert wait_for_step(page, 3) == refined(refiner.refine("a cat", seed=8)) and page.locator("#seed").input_value() == "8"
        page.locator("#length").fill("3")
        assert wait_for_step(page, 4) == refined(refiner.refine("a cat", seed=8, prompt_len=3))
        page.locator("[name=strategy][value='20']").check()
        rewritten = wait_for_step(page, 5)
        assert rewritten == refined(refiner.refine("a cat", seed=8, mode="rewrite", max_new_tokens=20))
        assert page.locator("#length-field").is_hidden()

        page.locator(".compare").nth(2).click()
        expect(page.locator("#comparison img")).to_have_count(4)
        assert page.locator("#comparison figcaption strong").all_text_contents() == [
            "Your words, original text encoder",
            "Candidate 3, original text encoder",
            "Your words, plug-in text encoder",
            "Candidate 3, plug-in text encoder",
        ]
        noise = refiner.refine("a cat", seed=8, mode="rewrite", max_new_tokens=20)[2].image_seed
        (wanted,) = refiner.draw("a cat", noise, plug_in=True, batch_size=1)
        pixels = (
            page.locator("#comparison img")
            .nth(2)
            .evaluate(
                "image => { const c = document.createElement('canvas'); c.width = c.height = 64; const d = c.getContext('2d');"
                " d.drawImage(image, 0, 0); return [...d.getImageData(0, 0, 64, 64).data]; }"
            )
        )
        assert np.array_equal(np.array(pixels, dtype=np.uint8).reshape(64, 64, 4)[..., :3], wanted)

        with page.expect_download() as saved:
            page.locator("#download").click()
        history = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
        assert saved.value.suggested_filename == "refined-prompt.json"
        assert [step["action"] for step in history["steps"]] == ["start", "redraw", "redraw", "change", "change"]
        assert [candidate["refined"] for candidate in history["steps"][-1]["candidates"]] == rewritten

        page.reload()
        assert wait_for_step(page, 5) == rewritten
        page.locator("#restart").click()
        assert page.locator("#workspace").is_hidden() and page.locator("#prompt").input_value() == ""


def test_what_is_typed_while_something_else_is_under_way_is_kept_and_done(browser, address, refiner):
    with person(browser, address) as page:
        page.locator("#prompt").fill("a cat")
        page.keyboard.press("Enter")
        wait_for_step(page, 1)
        page.locator("#prompt").fill("a draft")
        page.locator("[name=strategy][value='20']").check()
        wait_for_step(page, 2)
        assert page.locator("#prompt").input_value() == "a draft" and page.locator("#present").text_content() == "a cat"
        # Leaving the field is a change; the click on the button that ends it comes after it, and is not lost.
        page.locator("#ban").fill("night")
        page.locator("#prompt").fill("a red boat")
        page.locator("#submit").click()
        texts = wait_for_step(page, 4)
        assert texts == refined(refiner.refine("a red boat", mode="rewrite", max_new_tokens=20, ban="night"))
        assert (page.locator("#ban").input_value(), page.locator("#prompt").input_value()) == ("night", "a red boat")


def test_the_prompt_is_copied_as_it_is(browser, address):
    with person(browser, address) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#prompt").fill(INJECTIONS[2])
        page.locator("#submit").click()
        texts = wait_for_step(page, 1)
        page.locator("#copy").click()
        expect(page.locator("#copy")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == INJECTIONS[2]
        page.locator(".card .copy").nth(1).click()
        expect(page.locator(".card .copy").nth(1)).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == texts[1]
        expect(page.locator("#copy")).to_have_text("c Copy prompt")


def test_two_people_at_once_do_not_see_each_others_prompts(browser, address):
    with person(browser, address) as ada, person(browser, address) as bob:
        for page, prompt in ((ada, "a secret castle"), (bob, "a red boat")):
            page.locator("#prompt").fill(prompt)
            page.locator("#submit").click()
        ada_sees, bob_sees = wait_for_step(ada, 1), wait_for_step(bob, 1)
        ada.locator("#cards .pick").first.click()
        ada_sees += wait_for_step(ada, 2)
        bob.reload()
        assert wait_for_step(bob, 1) == bob_sees
        assert all(text.startswith("a secret castle") for text in ada_sees)
        assert all(text.startswith("a red boat") for text in bob_sees)
        assert "secret" not in bob.content() and "red boat" not in ada.content()


def test_html_in_a_prompt_is_text_wherever_it_is_shown(browser, address):
    with person(browser, address) as page:
        for number, injection in enumerate(INJECTIONS, start=1):
            page.locator("#prompt").fill(injection)
            page.locator("#prompt").press("Enter")
            texts = wait_for_step(page, number)
            assert page.locator("#present").text_content() == injection
            assert all(text.startswith(injection) for text in texts)
            page.locator(".compare").first.click()
            assert page.locator("#comparison .text").first.text_content() == injection
            expect(page.locator("#comparison img")).to_have_count(4)
        page.locator("#tab-runs").click()
        expect(page.locator(".row")).to_have_count(3)
        assert page.locator(".row figcaption").first.text_content().startswith(INJECTIONS[0])
        assert synthetic_runs.FAILURE in page.locator("#left-out li").text_content()
        assert page.evaluate("window.hacked") is None
        assert page.locator("main b, main script, main img[src='x']").count() == 0


def test_the_runs_are_compared_at_one_seed_filtered_and_sorted(browser, address):
    with person(browser, address) as page:
        page.locator("#tab-runs").click()
        expect(page.locator(".row")).to_have_count(3)
        assert page.locator("#run-list input:checked").count() == 2
        titles = page.locator(".row-run h3").all_text_contents()
        assert all("/seed-0" in title for title in titles) and len(titles) == 6
        page.locator("#run-seed").select_option("1")
        expect(page.locator(".row-run h3").first).to_contain_text("/seed-1")
        page.locator("#order").select_option("most diverse")
        expect(page.locator(".row")).to_have_count(3)
        page.locator("#filter").fill("castle")
        expect(page.locator("#grid-status")).to_have_text("1 of 1 prompt")
        assert page.locator(".row > figure figcaption").text_content() == "a castle at sunset"
        page.locator("#run-list input:checked").first.uncheck()
        expect(page.locator(".row-run")).to_have_count(1)
        expect(page.locator(".row-run img").first).to_have_js_property("naturalWidth", 64)


def test_what_the_refiner_refuses_is_said_on_the_page_and_changes_nothing(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    page.locator("#submit").click()
    expect(page.locator("#message")).to_have_text("The prompt is empty.")
    assert page.locator("#workspace").is_hidden()
    page.locator("#prompt").fill("a cat")
    page.locator("#submit").click()
    texts = wait_for_step(page, 1)
    page.locator("#prompt").fill("cat " * 600)
    page.locator("#submit").click()
    expect(page.locator("#message")).to_contain_text("at most 512 can be extended")
    assert page.locator("#cards .text").all_text_contents() == texts
    context.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_nothing_is_cut_off_on_a_phone_or_a_desktop(browser, address, width, height):
    def looked_at(page, name: str) -> None:
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0, name
        picture = page.screenshot(full_page=True, animations="disabled")
        assert Image.open(io.BytesIO(picture)).width == width
        if folder := os.environ.get("UF_FGTG_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{name}-{width}.png").write_bytes(picture)

    with person(browser, address, width, height) as page:
        looked_at(page, "start")
        page.locator("#prompt").fill("a castle in the snow, " + "w" * 120)
        page.locator("#prompt").press("Enter")
        wait_for_step(page, 1)
        page.locator(".compare").first.click()
        expect(page.locator("#comparison img")).to_have_count(4)
        small = [box["height"] for box in (button.bounding_box() for button in page.locator("#refine button:visible").all())]
        assert min(small) >= 32  # large enough for a finger
        looked_at(page, "refine")
        page.locator("#tab-runs").click()
        expect(page.locator(".row")).to_have_count(3)
        for image in page.locator(".row img").all():
            image.scroll_into_view_if_needed()  # else it is not loaded yet
            expect(image).to_have_js_property("naturalWidth", 64)
        looked_at(page, "runs")
