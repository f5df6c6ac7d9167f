"""`/docs` and `/redoc` in a browser: they show the whole API, ask no other server and raise no error."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Dialog, Page

from multiverse import LLM
from tests.serving.browser import new_page, wait_until
from tests.serving.conftest import Site, serving

SHOWN = {"/docs": ".opblock-summary-path", "/redoc": "[data-section-id*='operation/'], [id*='operation/']"}
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/tokenize", "/health")


def visit(page: Page, site: Site, path: str) -> list[str]:
    """Open a page and wait for what it shows; returns the addresses that it has asked."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.url + path)
    wait_until(page, f"document.querySelectorAll({SHOWN[path]!r}).length > 5")
    page.wait_for_load_state("networkidle")
    return asked


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_api_is_shown_without_the_network(browser: Browser, scripted: Site, errors: list[str], path: str) -> None:
    with new_page(browser, errors) as page:
        asked = visit(page, scripted, path)
        text = page.inner_text("body")
        assert all(endpoint in text for endpoint in ENDPOINTS)
        assert [url for url in asked if not url.startswith((scripted.url, "data:", "blob:"))] == []


def test_a_request_can_be_tried(browser: Browser, scripted: Site, errors: list[str]) -> None:
    with new_page(browser, errors) as page:
        visit(page, scripted, "/docs")
        version = page.locator(".opblock", has=page.locator("[data-path='/version']"))
        version.locator(".opblock-summary-control").click()
        version.locator(".try-out__btn").click()
        version.locator(".execute").click()
        version.locator(".live-responses-table .response-col_status", has_text="200").wait_for()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_server_with_keys_is_asked_with_one(browser: Browser, scripted_model: LLM, errors: list[str], path: str) -> None:
    def enter(dialog: Dialog) -> None:
        dialog.accept("sesame")

    with serving(scripted_model, api_keys=("sesame",)) as site, new_page(browser, errors) as page:
        page.on("dialog", enter)
        visit(page, site, path)
        assert all("401" in error for error in errors)  # the browser's own word on the first answer
        errors.clear()
