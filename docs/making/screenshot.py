# /// script
# dependencies = ["pillow>=11", "playwright>=1.49"]
# ///
"""Takes pictures of the chat page: `python docs/making/screenshot.py [FOLDER]`.

Without a folder, the two pictures of README and the documentation; with one, a picture of every
state of the page in the folder, to look at. `issun` is the one on PATH; the browser is Chromium.
Conversations are real ones, with the demonstration model, unless a state needs another answer.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
COLORS = 64  # of the palette, which makes a picture of few colours a third as large
MARKDOWN = """
# 富士山について

富士山は**「日本一高い山」**です。高さは*3,776 メートル*で、[静岡県](https://www.pref.shizuoka.jp/)と山梨県にまたがります。

## 登る前の準備

1. 天気予報を確かめる
2. 服と靴をそろえる
   - 雨具（上下）
   - 手袋と `ヘッドランプ`
3. 登山届を出す

| 登山道 | 距離 | 時間 |
|:--|--:|:-:|
| 吉田ルート | 15.1 km | 10 時間 |
| 富士宮ルート | 8.5 km | 8 時間 |

> 夏でも山頂は氷点下になることがあります。

```python
def feet(metres: float) -> float:
    return metres * 3.28084


print(feet(3776))
```
"""
# Each question with what its answer must contain.
EARLIER = {"フランスの首都は?": "パリ"}
QUESTIONS = {"日本で一番高い山は?": "富士山", "最初の質問は何ですか?": "高い山"}


class Picture(NamedTuple):
    """A state of the page, which `prepare` brings about, and how it is looked at."""

    name: str
    prepare: Callable[[Any], None]
    language: str = "ja"
    scheme: str = "light"
    size: tuple[int, int] = (1100, 800)


def conversations(page: Any) -> None:
    """Two conversations, of which the second shows."""
    _converse(page, EARLIER)
    _press_in_sidebar(page, "new-conversation")
    _converse(page, QUESTIONS)
    page.mouse.move(0, 0)


def empty(page: Any) -> None:
    """No message yet."""
    page.get_by_test_id("example").first.wait_for()


def markdown(page: Any) -> None:
    """An answer with all that Markdown has."""
    _answer_with(page, MARKDOWN.strip())
    _ask(page, "富士山に登りたいです。")
    page.get_by_test_id("regenerate").wait_for()
    page.locator("#messages").evaluate("log => { log.scrollTop = 0; }")


def error(page: Any) -> None:
    """A busy server, after an answer that was cut."""
    _answer_with(page, "富士山は静岡県と", end="length")
    _ask(page, "富士山はどこにありますか?")
    page.get_by_test_id("continue").wait_for()
    page.unroute("**/v1/chat/completions")
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            status=429,
            headers={"Retry-After": "5"},
            json={"error": {"message": "The queue is full."}},
        ),
    )
    page.get_by_test_id("continue").click()
    page.get_by_test_id("failure").wait_for()


def settings(page: Any) -> None:
    """The settings."""
    conversations(page)
    page.get_by_test_id("open-settings").click()


def transfer(page: Any) -> None:
    """Export and import."""
    conversations(page)
    _press_in_sidebar(page, "open-transfer")


def shortcuts(page: Any) -> None:
    """The list of shortcuts."""
    conversations(page)
    _press_in_sidebar(page, "open-shortcuts")


def deletion(page: Any) -> None:
    """The question before conversations are deleted."""
    conversations(page)
    _press_in_sidebar(page, "delete-all")


def search(page: Any) -> None:
    """Conversations that were searched for."""
    conversations(page)
    page.get_by_test_id("search").fill("ぱり")


def folded(page: Any) -> None:
    """Without the sidebar, in a role, editing."""
    page.get_by_test_id("role-select").select_option("samurai")
    _converse(page, {"日本で一番高い山は?": "ござる"})
    page.get_by_test_id("close-sidebar").click()
    page.get_by_test_id("edit").click()


def drawer(page: Any) -> None:
    """A phone's list of conversations."""
    _converse(page, EARLIER)
    page.get_by_test_id("open-drawer").click()
    page.wait_for_timeout(300)  # it slides in


SHORT, PHONE = (900, 650), (390, 760)
DOCUMENTED = (
    Picture("page", conversations, language="en", size=SHORT),
    Picture("page.ja", conversations, size=SHORT),
)
STATES = (
    Picture("empty", empty),
    Picture("empty-dark", empty, scheme="dark"),
    Picture("empty-en", empty, language="en"),
    Picture("empty-phone", empty, size=PHONE),
    Picture("light", conversations),
    Picture("dark", conversations, scheme="dark"),
    Picture("english", conversations, language="en"),
    Picture("phone", conversations, size=PHONE),
    Picture("phone-dark-drawer", drawer, scheme="dark", size=PHONE),
    Picture("markdown", markdown, size=(1100, 1100)),
    Picture("markdown-phone-dark", markdown, scheme="dark", size=(390, 1300)),
    Picture("error", error),
    Picture("error-dark-en", error, language="en", scheme="dark"),
    Picture("settings", settings),
    Picture("settings-en-dark", settings, language="en", scheme="dark"),
    Picture("settings-phone", settings, size=PHONE),
    Picture("transfer", transfer),
    Picture("transfer-phone-en", transfer, language="en", size=PHONE),
    Picture("shortcuts", shortcuts),
    Picture("deletion", deletion),
    Picture("search", search),
    Picture("folded-editing", folded),
)


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    target = folder or IMAGES
    target.mkdir(parents=True, exist_ok=True)
    with served() as address, sync_playwright() as api:
        browser = api.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for picture in STATES if folder else DOCUMENTED:
            path = target / f"{picture.name}.png"
            _take(browser, address, picture, path, scale=1.0 if folder else 1.5)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


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


def _take(browser: Any, address: str, picture: Picture, path: Path, *, scale: float) -> None:
    width, height = picture.size
    context = browser.new_context(
        locale=picture.language,
        color_scheme=picture.scheme,
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        has_touch=picture.size == PHONE,
    )
    page = context.new_page()
    page.goto(address)
    picture.prepare(page)
    page.screenshot(path=path)
    context.close()
    with Image.open(path) as taken:
        reduced = taken.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def _press_in_sidebar(page: Any, name: str) -> None:
    """Press a button of the sidebar, which a phone has to show first."""
    opener = page.get_by_test_id("open-drawer")
    if opener.is_visible():
        opener.click()
    page.get_by_test_id(name).click()


def _ask(page: Any, question: str) -> None:
    page.get_by_test_id("message-input").fill(question)
    page.get_by_test_id("send").click()


def _converse(page: Any, questions: dict[str, str]) -> None:
    for number, (question, expected) in enumerate(questions.items()):
        _ask(page, question)
        answer = page.get_by_test_id("message-assistant").nth(number)
        answer.wait_for()
        page.get_by_test_id("stop").wait_for(state="hidden")
        page.get_by_test_id("regenerate").wait_for()
        if expected not in answer.inner_text():
            raise SystemExit(f"{question} was answered {answer.inner_text()!r}")


def _answer_with(page: Any, text: str, end: str = "stop") -> None:
    """Let the next questions be answered with `text` in place of the model."""
    usage = {"prompt_tokens": 40, "completion_tokens": 210, "total_tokens": 250}
    chunks = (
        {"choices": [{"delta": {"content": text}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": end}]},
        {"choices": [], "usage": usage, "issun": {"tokens_per_second": 33.2}},
    )
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body=body),
    )


if __name__ == "__main__":
    main()
