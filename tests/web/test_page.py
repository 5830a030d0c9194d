"""The site in a real Chromium, hosted as plain files below a path."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from issun.runtime.manifest import read_manifest
from tests.conftest import Bundles
from tests.page.driving import ask
from tests.web.conftest import Hosted, MakeSite, hosting
from tests.web.driving import answer_to, pythons_answers, wait_until_ready

MOUNTAIN, SUM, WHO = "日本で一番高い山は?", "17足す8は?", "あなたは誰ですか?"


@pytest.mark.slow
def test_first_visit_and_a_visit_without_the_server(
    browser: Any, make_site: MakeSite, tmp_path: Path
) -> None:
    shutil.copytree(make_site(None), tmp_path / "repo")
    expected = pythons_answers([MOUNTAIN, SUM])
    with hosting(tmp_path) as address:
        hosted = Hosted(tmp_path / "repo", f"{address}repo/")
        visit = hosted.visit(browser)
        page = visit.__enter__()
        wait_until_ready(page)
        assert page.evaluate("crossOriginIsolated")
        assert page.get_by_test_id("model").inner_text().startswith("issun-embedded")
        assert answer_to(page, MOUNTAIN) == expected[0]
        assert page.get_by_test_id("memory").inner_text() != ""
        assert {url for url in hosted.requests if not url.startswith(hosted.url)} == set()
    page.reload()  # the server is gone
    wait_until_ready(page)
    assert page.evaluate("crossOriginIsolated")
    assert answer_to(page, SUM) == expected[1]
    visit.__exit__(None, None, None)


@pytest.mark.slow
def test_an_update_replaces_the_model(
    browser: Any, hosted: Hosted, make_site: MakeSite, bundle: Bundles
) -> None:
    other = bundle("head-8")
    with hosted.visit(browser) as page:
        wait_until_ready(page)
        before = stored(page)
        shutil.rmtree(hosted.folder)
        shutil.copytree(make_site(other), hosted.folder)
        page.reload()
        wait_until_ready(page)
        # Requests that come while the old service worker ends would keep it.
        page.workers[0].evaluate(
            """() => setInterval(() => fetch(new URL("../site.json", location.href)), 5)"""
        )
        page.get_by_test_id("updated").get_by_test_id("reload").click()
        name = read_manifest(other).source.name
        page.get_by_test_id("model").get_by_text(name).wait_for()
        after = stored(page)
        assert after.keys() == before.keys()
        weights = next(key for key in after if "weights" in key)
        assert set(after[weights]).isdisjoint(before[weights])


@pytest.mark.slow
def test_an_update_that_another_tab_has_loaded(browser: Any, hosted: Hosted) -> None:
    context = browser.new_context(locale="ja-JP")
    with hosted.page_of(context) as one, hosted.page_of(context) as two:
        for page in (one, two):
            wait_until_ready(page)
        with (hosted.folder / "sw.js").open("a", encoding="utf-8") as code:
            code.write("// of another version")
        two.evaluate("navigator.serviceWorker.ready.then((found) => found.update()).then(() => {})")
        for page in (one, two):
            page.get_by_test_id("updated").wait_for()
        for page in (one, two):
            with page.expect_navigation():
                page.get_by_test_id("updated").get_by_test_id("reload").click()
            wait_until_ready(page)
            assert page.get_by_test_id("updated").count() == 0
    context.close()


@pytest.mark.slow
def test_removing_the_model_leaves_nothing_stored(browser: Any, hosted: Hosted) -> None:
    with hosted.visit(browser) as page:
        wait_until_ready(page)
        assert len(stored(page)) == 2
        page.get_by_test_id("removeModel").click()
        page.locator("#ask-ok").click()
        page.get_by_test_id("removed").wait_for()
        assert stored(page) == {}
        registrations = "navigator.serviceWorker.getRegistrations().then((all) => all.length)"
        assert page.evaluate(registrations) == 0


@pytest.mark.slow
def test_roles_and_too_long_messages(browser: Any, hosted: Hosted) -> None:
    role = "あなたは「いっすん」です。関西弁で話してください。"
    with hosted.visit(browser, viewport={"width": 360, "height": 740}) as page:
        wait_until_ready(page)
        page.get_by_test_id("role-select").select_option("kansai")
        assert answer_to(page, WHO) == pythons_answers([WHO], role)[0]
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        ask(page, "漢字" * 400)
        page.get_by_test_id("failure").get_by_text("長すぎます").wait_for()
        page.get_by_test_id("retry").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["prompt", "answer"])
def test_a_stopped_answer_does_not_change_the_next(
    browser: Any, hosted: Hosted, place: str
) -> None:
    expected = pythons_answers([MOUNTAIN])
    with hosted.visit(browser, color_scheme="dark") as page:
        wait_until_ready(page)
        set_temperature(page, 2)  # which makes long answers
        # The model is too fast for a click from here.
        appears = "#stop:not([hidden])" if place == "prompt" else ".assistant .body:not(:empty)"
        page.evaluate(
            """(appears) => new MutationObserver((_, observer) => {
              if (!document.querySelector(appears)) return;
              observer.disconnect();
              document.getElementById("stop").click();
            }).observe(document.body, { attributes: true, childList: true, subtree: true })""",
            appears,
        )
        ask(page, "山と川と海。" * (70 if place == "prompt" else 1))
        page.get_by_test_id("stop").wait_for(state="hidden")
        page.get_by_test_id("messages").get_by_text("停止しました").wait_for()
        set_temperature(page, 0)
        page.get_by_test_id("new-conversation").click()
        assert answer_to(page, MOUNTAIN) == expected[0]
        background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        assert max(page.evaluate(background)[:3]) < 80


def set_temperature(page: Any, value: float) -> None:
    """Change the setting as another tab would."""
    page.evaluate(
        """(temperature) => {
          localStorage.setItem("issun.settings", JSON.stringify({ temperature, max_tokens: 300 }));
          const change = { key: "issun.settings", storageArea: localStorage };
          dispatchEvent(new StorageEvent("storage", change));
        }""",
        value,
    )


def stored(page: Any) -> dict[str, list[str]]:
    """The addresses of what each cache of the browser holds."""
    found: dict[str, list[str]] = page.evaluate(
        """async () => {
          const held = {};
          for (const name of await caches.keys()) {
            const keys = await (await caches.open(name)).keys();
            if (keys.length) held[name] = keys.map(({ url }) => url);
          }
          return held;
        }"""
    )
    return found


@pytest.mark.slow
def test_two_tabs_answer_and_share_conversations(browser: Any, hosted: Hosted) -> None:
    expected = pythons_answers([MOUNTAIN, SUM])
    context = browser.new_context(locale="ja-JP")
    with hosted.page_of(context) as one, hosted.page_of(context) as two:
        for page in (one, two):
            wait_until_ready(page)
        assert answer_to(one, MOUNTAIN) == expected[0]
        two.get_by_test_id("conversation-list").get_by_text(MOUNTAIN).wait_for()
        two.get_by_test_id("new-conversation").click()
        assert answer_to(two, SUM) == pythons_answers([SUM])[0]
    context.close()


@pytest.mark.slow
def test_where_storage_is_refused_it_still_answers(
    hosted: Hosted, tmp_path: Path, browser: Any
) -> None:
    import json

    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    refused = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (profile / "Default" / "Preferences").write_text(json.dumps(refused), encoding="utf-8")
    context = browser.browser_type.launch_persistent_context(
        profile,
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox"],
        locale="ja-JP",
    )
    with hosted.page_of(context) as page:
        assert page.evaluate("(() => { try { return !localStorage } catch { return true } })()")
        page.get_by_test_id("unstored").wait_for()
        page.get_by_test_id("model").get_by_text("issun-embedded").wait_for()
        assert not page.evaluate("crossOriginIsolated")
        ask(page, MOUNTAIN)
        page.get_by_test_id("regenerate").wait_for()
    context.close()


@pytest.mark.slow
def test_japanese_input_through_an_input_method(browser: Any, hosted: Hosted) -> None:
    with hosted.visit(browser) as page:
        wait_until_ready(page)
        page.get_by_test_id("message-input").click()
        line = page.context.new_cdp_session(page)
        composed = {"text": MOUNTAIN, "selectionStart": 3, "selectionEnd": 3}
        line.send("Input.imeSetComposition", composed)
        assert page.get_by_test_id("message-user").count() == 0
        line.send("Input.insertText", {"text": MOUNTAIN})
        page.keyboard.press("Enter")
        page.get_by_test_id("regenerate").wait_for()
        assert page.get_by_test_id("message-user").count() == 1


@pytest.mark.slow
def test_a_long_conversation_leaves_the_oldest_turns_out(browser: Any, hosted: Hosted) -> None:
    with hosted.visit(browser) as page:
        wait_until_ready(page)
        for number in range(8):
            answer_to(page, f"{MOUNTAIN}{'山と川と海。' * 12}{number}")
        page.get_by_test_id("notice").get_by_text("送られませんでした").wait_for()
        assert answer_to(page, MOUNTAIN) != ""
