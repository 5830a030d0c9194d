"""README in both languages: short, in order, and with commands, links and pictures that work."""

from __future__ import annotations

import re
import runpy
from itertools import pairwise
from pathlib import Path

import pytest

from tests.documentation.pages import ROOT, read_page

READMES = ("README.md", "README.ja.md")
MODEL = "https://huggingface.co/inu-ai/alpaca-guanaco-japanese-gpt-1b"
# What a reader meets, in this order; a part of each that stands in both languages.
ORDER = (
    "# issun",
    "docs/images/badge-python.svg",
    "docs/images/chat.svg",
    "docs/images/page.",
    "pip install .\n",
    "\nissun chat\n",
    "make demo",
    "make test",
    'pip install ".[export]"',
    "issun export ",
    "<!-- figures -->",
    "docs/images/memory-speed.",
    "| **issun int4, int8 KV** |",
    "(docs/chat.md)",
    "Qwen3",
    "GGUF",
    "docs/troubleshooting.md",
    "CONTRIBUTING.md",
    "(LICENSE)",
)


@pytest.fixture(params=READMES)
def readme(request: pytest.FixtureRequest) -> str:
    return (ROOT / request.param).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    return re.findall(r'(?<=\]\()[^)\s]+|(?<=src=")[^"]+', text)


def test_it_is_short_and_in_order(readme: str) -> None:
    assert len(readme.splitlines()) <= 120
    after_badges = readme.index(ORDER[2])
    places = [readme.find(part, 0 if i < 2 else after_badges) for i, part in enumerate(ORDER)]
    for (first, a), (second, b) in pairwise(zip(ORDER, places, strict=True)):
        assert 0 <= a < b, f"{second!r} should come after {first!r}"


def test_every_link_leads_somewhere_and_only_the_model_is_outside(readme: str) -> None:
    outside = {link for link in links(readme) if "://" in link}
    assert outside == {MODEL}
    assert set(re.findall(r"https?://[\w./-]+", readme)) == {MODEL}
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", readme, re.M)
    }
    for link in links(readme):
        if link.startswith("#"):
            assert link[1:] in headings
        elif "://" not in link:
            assert (ROOT / link).is_file(), link


def test_what_it_can_do_is_ten_bullets_with_links(readme: str) -> None:
    sections = re.split(r"^## ", readme, flags=re.M)
    (section,) = [each for each in sections if "docs/chat.md" in each]
    bullets = re.findall(r"^- .*(?:\n  .*)*", section, re.M)
    assert len(bullets) == 10
    assert all("](docs/" in bullet and len(bullet) < 200 for bullet in bullets)


def test_both_languages_have_the_same_commands_links_and_sections() -> None:
    english, japanese = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    commands = [[re.sub(r" *#.*", "", b.code) for b in read_page(ROOT / name)] for name in READMES]
    assert commands[0] == commands[1]

    def alike(text: str) -> list[str]:
        found = (link.replace(".ja.", ".") for link in links(text) if link[0] != "#")
        return sorted(set(found))

    assert alike(english) == alike(japanese)
    for mark in (r"^#+ ", r"^- \*\*", r"^\|", r"^<!-- run"):
        assert len(re.findall(mark, english, re.M)) == len(re.findall(mark, japanese, re.M)), mark


def test_the_command_keeps_the_headline_s_promise(readme: str) -> None:
    """The bundle that the export makes is the table's row of about 1 GB."""
    assert re.search(r"about 1 GB|約 1 GB", readme)
    (options,) = re.findall(r"issun export \S+ -o b4 (.*)", readme)
    assert options == "--precision int4 --kv-cache int8"
    (peak,) = re.findall(r"\*\*issun int4, int8 KV\*\* \| [^|]* \| ([\d.]+) GB", readme)
    assert float(peak) < 1.1
    assert f"{peak} GB" in readme.replace(f"| {peak} GB", "")


def test_the_badges_are_current() -> None:
    made: dict[Path, str] = runpy.run_path(str(ROOT / "docs" / "making" / "badges.py"))["badges"]()
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run `python docs/making/badges.py`"


def test_the_pictures_are_small_and_load_nothing() -> None:
    folder = ROOT / "docs" / "images"
    recording = (folder / "chat.svg").read_text(encoding="utf-8")
    assert len(recording.encode()) < 300_000
    assert "富士山" in recording and "@keyframes" in recording
    for picture in ("page.png", "page.ja.png"):
        assert (folder / picture).stat().st_size < 150_000
    for drawing in folder.glob("*.svg"):
        text = drawing.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|href=|url\((?!#)", text), drawing
