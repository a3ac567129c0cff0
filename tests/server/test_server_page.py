"""The page in a real browser: streaming, stopping, reloading, two tabs, and for whom it works.

Needs `playwright`, `axe-playwright-python` and Chromium, of which $CHROMIUM may be the path.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from specdec_native.server.app import create_app  # noqa: E402
from specdec_native.server.settings import Settings  # noqa: E402

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Served:
    """A server in a thread of this process."""

    def __init__(self, engine, settings):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        app = create_app(engine, settings)
        config = uvicorn.Config(app, port=self.port, log_level="error", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def close(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def tiny(tiny_path):
    """With two threads: one alone writes faster than the page can show it."""
    with sd.Model(tiny_path, n_threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def served(tiny):
    made = Served(sd.Engine(tiny, n_ctx=1 << 16), Settings("tiny"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def context(browser):
    made = browser.new_context(viewport={"width": 1000, "height": 700})
    made.set_default_timeout(60_000)
    yield made
    made.close()


@pytest.fixture
def page(context, served):
    made = open_page(context, served)
    yield made
    assert made.problems == []


def open_page(context, served):
    made = context.new_page()
    made.problems = []
    made.on("pageerror", lambda error: made.problems.append(str(error)))
    made.on("request", lambda request: note_foreign(made, request.url, served.port))
    made.goto(f"http://127.0.0.1:{served.port}/")
    made.wait_for_selector("#model:has-text('tiny: llama')")
    return made


def note_foreign(page, url, port):
    if not url.startswith((f"http://127.0.0.1:{port}/", "data:")):
        page.problems.append(f"asked for {url}")


def settings(page, **values):
    if page.is_hidden("#settings"):
        page.click("#open-settings")
    for name, value in values.items():
        page.fill(f"#{name}", str(value))
    page.click("#open-settings")


def ask(page, text):
    page.fill("#question", text)
    page.keyboard.press("Enter")


def finished(page, answers=1):
    page.wait_for_function(
        "n => document.querySelector('#talk').getAttribute('aria-busy') === 'false' &&"
        " document.querySelectorAll('article.assistant .tools').length === n",
        arg=answers,
    )


def test_an_answer_streams_and_is_the_engines(page, tiny):
    settings(page, max_tokens=30)
    ask(page, "the cat in the hat")
    finished(page)
    with sd.Decoder(tiny, drafter=None, n_ctx=4096) as decoder:
        messages = [{"role": "user", "content": "the cat in the hat"}]
        expected = decoder.chat(messages, max_tokens=30)
    assert page.text_content("article.assistant .text") == expected.text
    assert "tokens/s" in page.inner_text("#status")
    assert re.fullmatch(r"[\d.]+", page.inner_text("#m-per-pass"))


def test_tokens_are_coloured_and_tell_on_hover(page):
    settings(page, max_tokens=120)
    page.click("#open-settings")
    page.check("#logprobs")
    page.click("#open-settings")
    ask(page, "a b a b a b a b a b")
    finished(page)
    assert page.locator(".token.target").count() > 0
    assert page.locator(".token.looked-up").count() > 0
    token = page.locator("article.assistant .token", has_text=re.compile(r"\w")).first
    token.hover()
    tip = page.inner_text("#tip")
    assert "pass" in tip
    assert "log-probability" in tip
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")
    token.focus()  # with the keyboard
    assert page.is_visible("#tip")


def test_stop_ends_the_generation(page, served):
    settings(page, max_tokens=60000)
    ask(page, "the cat")
    page.wait_for_selector("article.assistant .token")
    page.click("#stop")
    finished(page)
    assert page.inner_text("#status") == "stopped"
    length = len(page.text_content("article.assistant .text"))
    assert length > 0
    settings(page, max_tokens=5)
    ask(page, "and on")  # the engine is free again
    finished(page, 2)


def test_escape_stops_too(page):
    settings(page, max_tokens=60000)
    ask(page, "the cat")
    page.wait_for_selector("article.assistant .token")
    page.keyboard.press("Escape")
    finished(page)
    assert page.inner_text("#status") == "stopped"


def test_a_reload_keeps_the_conversation_and_two_tabs_are_two(context, page, served):
    settings(page, max_tokens=10)
    ask(page, "first tab")
    finished(page)
    text = page.text_content("article.assistant .text")
    other = open_page(context, served)
    assert other.locator("article").count() == 0
    assert other.input_value("#max_tokens") == "10"
    ask(other, "second tab")
    ask(page, "first tab again")
    finished(other)
    finished(page, 2)
    page.reload()
    page.wait_for_selector("article.assistant")
    assert page.locator("article").count() == 4
    assert page.locator("article.assistant .text").nth(0).text_content() == text
    assert other.locator("article").count() == 2


def test_edit_and_regenerate(page):
    settings(page, max_tokens=8)
    ask(page, "one")
    finished(page)
    text = page.text_content("article.assistant .text")
    page.click("button:has-text('Regenerate')")
    finished(page)
    assert page.text_content("article.assistant .text") == text
    page.click("button:has-text('Edit')")
    assert page.locator("article").count() == 0
    assert page.input_value("#question") == "one"
    ask(page, "two")
    finished(page)
    assert page.text_content("article.user .text") == "two"


def test_side_by_side_proves_that_both_are_equal(page):
    settings(page, max_tokens=40, temperature=1)
    page.click("#compare")
    ask(page, "the cat in the hat")
    finished(page)
    assert page.inner_text(".proof").startswith("Identical: the same ")
    plain, fast = page.locator(".columns .text").all_text_contents()
    assert plain == fast
    assert page.locator(".columns section >> nth=0").locator(".drafted, .looked-up").count() == 0


def test_text_is_never_markup(page):
    settings(page, max_tokens=4)
    ask(page, "<img src=x onerror=alert(1)><b>bold</b>")
    finished(page)
    assert page.locator("article img, article b").count() == 0
    assert page.text_content("article.user .text").startswith("<img")


def test_the_system_prompt_and_sampling_arrive(page):
    page.click("#open-settings")
    with page.expect_request("**/v1/chat/completions") as sent:
        settings(page, system="be brief", temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, seed=3)
        ask(page, "hello")
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    names = ("temperature", "top_p", "top_k", "min_p", "seed")
    assert [body[name] for name in names] == [0.5, 0.9, 7, 0.1, 3]
    finished(page)


def test_errors_are_shown_and_the_next_message_works(page):
    settings(page, max_tokens=4)
    ask(page, "x" * 70000)
    page.wait_for_selector("#status.error")
    assert "context" in page.inner_text("#status")
    page.click("#new")
    ask(page, "short")
    finished(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 360])
def test_axe_finds_nothing(browser, served, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    context = browser.new_context(
        viewport={"width": width, "height": 700}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = open_page(context, served)
    settings(page, max_tokens=60)
    ask(page, "a b a b a b a b")
    finished(page)
    page.click("#open-settings")
    found = axe.Axe().run(page)
    assert found.response["violations"] == []
    overflow = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not overflow
    context.close()
