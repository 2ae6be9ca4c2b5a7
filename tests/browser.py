"""A headless Chromium for the tests that look at pages."""

import contextlib
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--no-default-browser-check"]


@contextlib.contextmanager
def chromium():
    """Start the system's Chromium, or else the one that Playwright has installed."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        path = path or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.fail("these tests need Chromium: run `make browser`")
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()
