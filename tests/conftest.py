"""Fixtures that several test files use."""

import nbformat
import pytest
from playwright.sync_api import sync_playwright

from tests.helpers import chromium
from tools import load_definitions as loader


@pytest.fixture(scope="session")
def lesson(tmp_path_factory):
    """The notebook's definitions, on the CPU, with results in a temporary folder."""
    folder = str(tmp_path_factory.mktemp("lesson"))
    return loader.load(OUTPUT_DIR=folder, DEVICE="cpu", TRACKING="none")


@pytest.fixture
def patch(lesson, monkeypatch):
    """A function that replaces one of the lesson's global names during a test."""

    def patch(name, value):
        monkeypatch.setitem(lesson.train.__globals__, name, value)

    return patch


@pytest.fixture(scope="session")
def committed():
    """The committed notebook."""
    return nbformat.read(loader.NOTEBOOK, as_version=4)


@pytest.fixture(scope="session")
def browser():
    """Chromium, started once."""
    path = chromium()
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=quiet)
        yield started
        started.close()
