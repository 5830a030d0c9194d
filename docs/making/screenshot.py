# /// script
# dependencies = ["pillow>=11", "playwright>=1.49"]
# ///
"""Takes the pictures of the chat page: `python docs/making/screenshot.py`.

`issun` is the one on PATH; the browser is Chromium. The conversations are real ones, with the
demonstration model.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
PICTURES = {"page.png": "en", "page.ja.png": "ja"}  # with the language of the page
SIZE = {"width": 900, "height": 650}
COLORS = 64  # of the palette, which makes a picture of few colours a third as large
# Each question with what its answer must contain.
EARLIER = {"フランスの首都は?": "パリ"}
QUESTIONS = {"日本で一番高い山は?": "富士山", "最初の質問は何ですか?": "高い山"}


@contextmanager
def served() -> Iterator[str]:
    """The address of a server with the demonstration model."""
    command = ["issun", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as server:
        try:
            for line in server.stderr or ():
                if found := re.search(r"http://\S+\d", line):
                    yield found[0]
                    break
        finally:
            server.terminate()


def main() -> None:
    """Write the pictures."""
    with served() as address, sync_playwright() as api:
        browser = api.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, language in PICTURES.items():
            context = browser.new_context(viewport=SIZE, device_scale_factor=1.5)
            page = context.new_page()
            page.goto(address)
            page.get_by_test_id("open-settings").click()
            page.get_by_test_id("language-select").select_option(language)
            page.keyboard.press("Escape")
            _converse(page, EARLIER)
            page.get_by_test_id("new-conversation").click()
            _converse(page, QUESTIONS)
            page.screenshot(path=IMAGES / name)
            _reduce_colors(IMAGES / name)
            print(f"{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB")
            context.close()
        browser.close()


def _reduce_colors(path: Path) -> None:
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def _converse(page: Any, questions: dict[str, str]) -> None:
    for number, (question, expected) in enumerate(questions.items()):
        page.get_by_test_id("message-input").fill(question)
        page.get_by_test_id("send").click()
        answer = page.get_by_test_id("message-assistant").nth(number)
        answer.wait_for()
        page.get_by_test_id("stop").wait_for(state="hidden")
        page.get_by_test_id("regenerate").wait_for()
        if expected not in answer.inner_text():
            raise SystemExit(f"{question} was answered {answer.inner_text()!r}")


if __name__ == "__main__":
    main()
