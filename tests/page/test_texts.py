"""The page's texts: one JSON file for each language, alike in keys and places for values."""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "server" / "page"
SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted(PAGE.iterdir())
    if path.suffix in (".js", ".html")
)
WORDS = set(re.findall(r"""["'`]([\w]+)["'`]""", SOURCE)) | set(re.findall(r"(\w+):", SOURCE))
# Texts that the page names by their parts: the part before, and the part behind.
FAMILIES = (r"(hint|state|role)_(\w+)", r"(\w+)_(\w+)", r"(\w+)(Help)", r"(error)(\d+)")


def texts(language: str) -> dict[str, Any]:
    found = json.loads((PAGE / f"{language}.json").read_text(encoding="utf-8"))
    return dict(found)


LANGUAGES = sorted(path.stem for path in PAGE.glob("*.json"))
JAPANESE, ENGLISH = texts("ja"), texts("en")


def places(text: str | dict[str, str]) -> set[str]:
    forms = [text] if isinstance(text, str) else text.values()
    found = [set(re.findall(r"\{(\w+)\}", form)) for form in forms]
    assert all(form == found[0] for form in found)
    return found[0]


def is_used(key: str) -> bool:
    """Named whole, or made of a family's part and a word of the source."""
    if key in set(re.findall(r"""["'`=]([\w]+)["'`]""", SOURCE)):
        return True
    for family in FAMILIES:
        if parts := re.fullmatch(family, key):
            before, after = parts.groups()
            if before == "error":
                return "`error${status}`" in SOURCE
            named = f"`{before}_${{" in SOURCE or ("`${name}_${" in SOURCE and before in WORDS)
            if after == "Help":
                named = "`${name}Help`" in SOURCE and before in WORDS
            if named and (after in WORDS or after == "Help"):
                return True
    return False


def test_every_language_can_be_chosen() -> None:
    assert LANGUAGES == ["en", "ja"]
    assert re.search(r'name: "language", options: \["auto", "ja", "en"\]', SOURCE)
    for language in LANGUAGES:
        assert f'import {language} from "./{language}.json" with' in SOURCE
        assert {f"language_{other}" for other in LANGUAGES} <= texts(language).keys()


def test_the_languages_have_the_same_texts() -> None:
    assert list(JAPANESE) == list(ENGLISH)
    for key in JAPANESE:
        assert places(JAPANESE[key]) == places(ENGLISH[key]), key


def test_plural_forms_are_those_of_the_language() -> None:
    for language, forms in (("ja", {"other"}), ("en", {"one", "other"})):
        plurals = [text for text in texts(language).values() if not isinstance(text, str)]
        assert plurals and all(set(text) == forms for text in plurals)


def test_every_text_is_used() -> None:
    assert not [key for key in ENGLISH if not is_used(key)]


def test_a_text_that_is_not_used_is_found() -> None:
    for key in ("nothing", "state_nothing", "nothingHelp", "theme_nothing", "nothing_light"):
        assert not is_used(key)


def test_every_text_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"""\bt\(\s*["'](\w+)["']""", SOURCE))
    named |= set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', SOURCE))
    named |= set(re.findall(r'new ApiError\("(\w+)"', SOURCE))
    named |= set(re.findall(r'makeButton\("(\w+)"', SOURCE))
    named |= set(re.findall(r'notices\.show\("(\w+)"', SOURCE))
    named |= set(re.findall(r'\b(?:text|ok): "(\w+)"', SOURCE))
    assert len(named) > 50
    assert named <= ENGLISH.keys()


def test_every_value_that_a_text_has_is_given() -> None:
    """Each `t("key", { … })` names the places of its text."""
    calls = re.findall(r'\bt\(\s*"(\w+)"(?:, \{ (.*?) \})?\)', SOURCE)
    assert calls
    for key, values in calls:
        # `name: value` or `name`; values may hold calls with commas of their own.
        missing = [
            place for place in places(ENGLISH[key]) if not re.search(rf"\b{place}\b", values)
        ]
        assert not missing, key


def test_no_text_stands_in_the_source() -> None:
    """A Japanese text in a script would not be translated; roles and examples are for the model."""
    for path in PAGE.glob("*.js"):
        if path.name not in ("roles.js", "welcome.js"):
            assert not re.search(r"[ぁ-んァ-ヶ一-龥]", path.read_text(encoding="utf-8")), path.name


def test_the_first_load_is_small() -> None:
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 150_000
