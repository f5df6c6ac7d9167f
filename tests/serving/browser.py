"""Chromium for the page's tests and pictures, through Playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-color-profile=srgb",
)


def find_chromium() -> str | None:
    """Path of the system's Chromium; the environment variable ``CHROMIUM`` names another one. Playwright's own is not used."""
    named = os.environ.get("CHROMIUM")
    return named if named else next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A running headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(
    browser: Browser,
    errors: list[str],
    width: int = 1440,
    height: int = 900,
    *,
    dark: bool = False,
    phone: bool = False,
    scale: float = 1,
    still: bool = True,
) -> Iterator[Page]:
    """A blank page with storage of its own.

    Args:
        browser: where to open it.
        errors: uncaught exceptions and console errors are added to this list.
        width, height: of the window, in CSS pixels.
        dark: whether the system asks for dark colours.
        phone: whether it is a mobile device with a touch screen.
        scale: device pixels per CSS pixel.
        still: whether the system asks for reduced motion, which spares drawing sixty times a second.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        is_mobile=phone,
        has_touch=phone,
        device_scale_factor=scale,
        reduced_motion="reduce" if still else "no-preference",
    )
    context.set_default_timeout(60_000)
    page = context.new_page()

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} {message.location.get('url', '')}".strip())

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        context.close()


_LOOK = """() => new Promise((resolve, reject) => {
  const end = performance.now() + MILLISECONDS;
  const look = () => {
    try {
      if (EXPRESSION) resolve(true);
      else if (performance.now() > end) resolve(false);
      else setTimeout(look, 10);
    } catch (error) { reject(error); }
  };
  look();
})"""


def wait_until(page: Page, expression: str, seconds: float = 60) -> None:
    """Wait until a JavaScript expression is true. The page itself looks, so that nobody has to ask it again and again.

    `Page.wait_for_function` compiles its expression inside the page, which the page's content security policy forbids.

    Raises:
        AssertionError: it was not true in time.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            if page.evaluate(_LOOK.replace("MILLISECONDS", f"{1000 * left:.0f}").replace("EXPRESSION", expression)):
                return
        except Error as error:
            if "context" not in str(error):  # other than: the page is being loaded anew
                raise
            page.wait_for_timeout(20)
    raise AssertionError(f"not true within {seconds:g} s: {expression}")
