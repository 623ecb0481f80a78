"""The page of the demo in a real browser: what a person would click, and what they would see."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.examples.browser import CHROMIUM, Page, browse
from tests.examples.processes import Served, served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served("examples.demo.app:app", tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture(scope="module")
def page(demo: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browse(tmp_path_factory.mktemp("profile"), demo.url) as opened:
        yield opened
        assert [text for text in opened.complaints if "504" not in text and "413" not in text] == []


def test_the_chat_says_what_is_typed_and_shows_who_is_here(page: Page) -> None:
    page.see("#chat-state", "connected")
    page.type("#join-name", "Ada")
    page.press_enter()
    page.see("#people", "Ada (you)")
    page.type("#chat-text", "Hello from <b>Chromium</b>")
    page.press_enter()
    page.see("#messages li.mine", "Hello from <b>Chromium</b>")
    assert page.value("document.querySelector('#chat-text').value") == ""


def test_who_was_cut_off_gets_what_was_said_while_a_client_stalls_and_the_others_do_not_wait(page: Page) -> None:
    number = "Number(document.querySelector('#{}').textContent.replaceAll(',', ''))"
    page.until(f"{number.format('price-drawn')} > 20")
    page.click("#stall")
    page.click("#cut")
    page.see("#chat-state", "cut off")
    page.see("#chat-note", "10 messages recovered, nothing lost")
    said = page.text("#messages")
    assert said.count("while somebody was away") == 10
    page.until(f"{number.format('price-conflated')} > 100")  # of prices only the latest come
    page.see("#stall-note", "gave way to later ones")
    page.until(f"{number.format('hub-conflated')} > 0")
    assert page.value("parseFloat(document.querySelector('#hub-median').textContent)") < 500
    page.click("#stall")
    page.see("#stall-note", "reads again")


def test_the_ticker_ticks(page: Page) -> None:
    first = int(page.until("Number(document.querySelector('#tick-number').textContent)"))
    page.until(f"Number(document.querySelector('#tick-number').textContent) >= {first + 2}")
    page.see("#tick-note", "after the one before")


def test_the_table_shows_the_hub_and_both_streams_with_their_deadlines(page: Page) -> None:
    for path, slot in (("/hub", "ping"), ("/ticks", "stream"), ("/connections", "stream")):
        row = f"[...document.querySelectorAll('#connections tbody tr')].find(r => r.innerText.includes('{path}'))"
        page.until(f"{row}?.innerText.includes('{slot}')")
    page.see("#connections tr.you", "/connections")
    accepted, opened, ended = page.value("[...document.querySelectorAll('.sum dd')].map(e => Number(e.textContent))")
    assert accepted == opened + ended
    assert opened >= 3


def test_the_slow_endpoint_shows_the_problem_document_when_its_deadline_has_passed(page: Page) -> None:
    page.click("#slow-button")
    page.see("#slow-button", "Leave")
    shown = page.see("#slow-answer", "504 after")
    assert '"reason": "handler_deadline"' in shown
    page.see("#requests tbody", "handler_deadline")
    page.see("#slow-button", "Ask")


def test_leaving_the_slow_endpoint_early_is_shown_as_the_clients_act(page: Page) -> None:
    page.click("#slow-button")
    page.see("#slow-button", "Leave")
    page.until("[...document.querySelectorAll('#connections tbody tr')].some(r => r.innerText.includes('handler'))")
    page.click("#slow-button")
    page.see("#slow-answer", "you left")
    page.see("#requests tbody", "client_closed_request")


def test_an_upload_shows_its_progress_and_how_many_bytes_arrived(page: Page) -> None:
    page.click("#upload-button")
    page.see("#upload-answer", f'"bytes": {64 * 1024 * 1024}', seconds=30)
    assert page.value("document.querySelector('#upload-progress').value") == 1


def test_an_export_is_answered_at_once_and_its_pages_appear(page: Page) -> None:
    page.click("#export")
    page.see("#export-state", "page 2 of 40")
    assert page.value("document.querySelectorAll('#export-bar i.run1').length") >= 2
    page.see("#export-note", "Process")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_the_page_is_never_wider_than_the_window(page: Page, width: int, dark: bool) -> None:
    page.resize(width, 900, mobile=width < 800, dark=dark)
    assert page.value("document.documentElement.scrollWidth") <= width


def test_when_the_server_stops_the_page_says_so(page: Page, demo: Served) -> None:
    code, _ = demo.stop(signal.SIGINT)
    assert code == 0, demo.log.read_text()
    page.see("#chat-state", "back in")
    page.see("#tick-state", "reconnecting")
    page.complaints.clear()  # the browser complains of every try to reconnect, as it should
