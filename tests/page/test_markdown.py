"""Answers in Markdown: what is recognized, what stays text, and that nothing in it can run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.page.driving import answer_with, ask, take_over, texts, wait_for_end
from tests.server.conftest import Running

ATTACKS = (
    "<img src=x onerror=\"document.title='taken'\">",
    "<script>document.title='taken'</script>",
    "[x](javascript:document.title='taken')",
    "![x](https://example.com/x.png)",
    "[x](data:text/html,<script>document.title='taken'</script>)",
    '[x](<" onmouseover="document.title=1>)',
    "<svg/onload=document.title='taken'>",
    "**<img src=x onerror=document.title='taken'>**",
    "| <img src=x onerror=document.title='taken'> |\n|---|\n| <a href=javascript:x>x</a> |",
    "```html\n<script>document.title='taken'</script>\n```",
    "```\"><img src=x onerror=document.title='taken'>\nx\n```",
    "# <iframe src=javascript:x></iframe>",
    "> <style>*{display:none}</style>",
    "1. <a href='javascript:x'>x</a>",
)


@pytest.fixture(scope="module")
def blank(browser: Any, server: Running) -> Iterator[Any]:
    """One page for all tests that only use its modules."""
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(server.url)
    yield opened
    context.close()


def html(blank: Any, text: str) -> str:
    """The elements made of `text`; code blocks are shown as they are in `pre`."""
    found: str = blank.evaluate(
        """async (text) => {
          const { blocksOf } = await import("/page/markdown.js");
          const code = (text, language) => {
            const made = document.createElement("pre");
            made.append(`${language}:${text}`);
            return made;
          };
          const root = document.createElement("div");
          root.append(...blocksOf(text, code).map(({ make }) => make()));
          return root.innerHTML;
        }""",
        text,
    )
    return found.replace(' tabindex="0"', "").replace(' class=""', "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("一行目\n二行目\n\n次の段落", "<p>一行目\n二行目</p><p>次の段落</p>"),
        ("# 題", '<h3 class="heading-1">題</h3>'),
        ("## 題 ##\n本文", '<h3 class="heading-2">題</h3><p>本文</p>'),
        (
            "# 一\n#### 四\n## 二",
            '<h3 class="heading-1">一</h3><h4 class="heading-4">四</h4>'
            '<h4 class="heading-2">二</h4>',
        ),
        ("#題ではない", "<p>#題ではない</p>"),
        ("- 山\n- 川", "<ul><li>山</li><li>川</li></ul>"),
        ("* 山\n\n* 川\n後", "<ul><li>山</li><li>川\n後</li></ul>"),
        ("3. 山\n4. 川", '<ol start="3"><li>山</li><li>川</li></ol>'),
        (
            "1. 山\n   - 富士\n   - 高尾\n2. 川",
            '<ol start="1"><li>山<ul><li>富士</li><li>高尾</li></ul></li><li>川</li></ol>',
        ),
        ("- 山\n\n  続き\n\n外", "<ul><li>山<p>続き</p></li></ul><p>外</p>"),
        ("- 山\n1. 川", '<ul><li>山</li></ul><ol start="1"><li>川</li></ol>'),
        ("-5は負の数", "<p>-5は負の数</p>"),
        ("創業は\n1945. 年", "<p>創業は\n1945. 年</p>"),
        ("> 引用\n> - 山\n外", "<blockquote><p>引用</p><ul><li>山</li></ul></blockquote><p>外</p>"),
        ("前\n\n---\n\n後", "<p>前</p><hr><p>後</p>"),
        ("```py\nif x:\n    **y**\n```\n後", "<pre>py:if x:\n    **y**</pre><p>後</p>"),
        ("```\nまだ途中", "<pre>:まだ途中</pre>"),
        ("~~~~\n```\n~~~~", "<pre>:```</pre>"),
        (
            "| 山 | 高さ |\n|:-:|--:|\n| 富士 | **3776** |\n| a\\|b |",
            '<div class="table"><table><thead><tr><th class="center">山</th>'
            '<th class="right">高さ</th></tr></thead><tbody>'
            '<tr><td class="center">富士</td><td class="right"><strong>3776</strong></td></tr>'
            '<tr><td class="center">a|b</td><td class="right"></td></tr></tbody></table></div>',
        ),
        ("a | b", "<p>a | b</p>"),
        (
            "a | b\n---|---\n1<br>2 | 3",
            '<div class="table"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>'
            "<tr><td>1\n2</td><td>3</td></tr></tbody></table></div>",
        ),
        (
            "- 一\n    - 二\n        - 三\n- 四",
            "<ul><li>一<ul><li>二<ul><li>三</li></ul></li></ul></li><li>四</li></ul>",
        ),
        (
            "1. **一**:\n\n   説明\n\n   ```sh\n   ls\n   ```\n\n2. 二",
            '<ol start="1"><li><strong>一</strong>:<p>説明</p><pre>sh:ls</pre></li>'
            "<li>二</li></ol>",
        ),
        ("手順:\n1. 一\n2. 二", '<p>手順:</p><ol start="1"><li>一</li><li>二</li></ol>'),
        ("## **題**", '<h3 class="heading-2"><strong>題</strong></h3>'),
        ("- **鍵**: 値\n- `b`", "<ul><li><strong>鍵</strong>: 値</li><li><code>b</code></li></ul>"),
    ],
)
def test_blocks(blank: Any, text: str, expected: str) -> None:
    assert html(blank, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**太字**と*強調*", "<strong>太字</strong>と<em>強調</em>"),
        ("これは**「鍵」**です", "これは<strong>「鍵」</strong>です"),  # CommonMark shows asterisks
        ("***両方***", "<strong><em>両方</em></strong>"),
        ("**a *b* c**", "<strong>a <em>b</em> c</strong>"),
        ("**a *b***", "<strong>a <em>b</em></strong>"),
        ("*a **b** c*", "<em>a <strong>b</strong> c</em>"),
        ("__太字__ _強調_", "<strong>太字</strong> <em>強調</em>"),
        ("令和7**年**", "令和7<strong>年</strong>"),
        ("3*5*2=30、2**3は8、2**4は16", "3*5*2=30、2**3は8、2**4は16"),
        ("snake_case_name", "snake_case_name"),
        ("a * b * c", "a * b * c"),
        ("**閉じない", "**閉じない"),
        ("x ****", "x ****"),
        ("`a*b*c`と``a`b``", "<code>a*b*c</code>と<code>a`b</code>"),
        (r"\*文字\*", "*文字*"),
        (r"C:\path", r"C:\path"),
        (
            "[静岡*県*](https://a.jp/b_(c)?d=1)へ",
            '静岡<em>県</em> <span class="address">(https://a.jp/b_(c)?d=1)</span>へ',
        ),
        ("[a](<b c> '題')", 'a <span class="address">(b c)</span>'),
        ("[https://a.jp](https://a.jp)", '<span class="address">https://a.jp</span>'),
        ("![絵](https://a.jp/a.png)", '絵 <span class="address">(https://a.jp/a.png)</span>'),
        ("[a] と https://a.jp/a_b_c", "[a] と https://a.jp/a_b_c"),
        ("&lt;b&gt;<b>", "&amp;lt;b&amp;gt;&lt;b&gt;"),
    ],
)
def test_what_is_in_a_line(blank: Any, text: str, expected: str) -> None:
    assert html(blank, text) == f"<p>{expected}</p>"


def test_nothing_in_an_answer_can_run_or_load(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for attack in ATTACKS:
        answer_with(page, *attack)  # one character after the other: also its unfinished states
        ask(page, attack)
        wait_for_end(page)
        take_over(page)
    bodies = page.get_by_test_id("message-assistant").get_by_test_id("message-text")
    assert bodies.count() == len(ATTACKS)
    made = bodies.locator("*").evaluate_all(
        "all => all.map((each) => [each.localName, ...each.getAttributeNames()])"
    )
    tags, names = {each[0] for each in made}, {name for each in made for name in each[1:]}
    assert tags.isdisjoint({"img", "script", "iframe", "svg", "style", "a", "object", "link"})
    assert names <= {"class", "start", "tabindex", "data-testid", "data-text", "type"}
    assert texts(page, "user") == list(ATTACKS)
    assert page.title() != "taken"
    own = ("/v1/chat/completions", "/v1/models", "/health", "/page/icon.svg")
    assert [url for url in asked if not url.endswith(own)] == []


def test_code_has_a_button_that_copies_it(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = 'def f():\n    return "<b>*1*</b>"'
    answer_with(page, f"例:\n```python\n{code}\n```\n")
    ask(page, "例は?")
    wait_for_end(page)
    block = page.get_by_test_id("code")
    assert block.locator("code").inner_text() == code
    assert "python" in block.inner_text()
    block.get_by_test_id("copy-code").click()
    page.get_by_text("コピーしました", exact=True).first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == code


def test_copying_an_answer_gives_its_markdown(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer_with(page, "- **山**\n- 川")
    ask(page, "例は?")
    wait_for_end(page)
    page.get_by_test_id("message-assistant").get_by_test_id("copy").click()
    page.get_by_text("コピーしました", exact=True).first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "- **山**\n- 川"


def test_an_answer_that_grows_keeps_its_elements_and_ends_like_the_whole(page: Any) -> None:
    text = (
        "# 題\n一**二**三\n\n- a\n- b\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n```\nc\nd\n```\n終わり"
    )
    grown, whole, kept = page.evaluate(
        """async (text) => {
          const { makeAnswerText } = await import("/page/bodies.js");
          const [grown, whole] = [document.createElement("div"), document.createElement("div")];
          const show = makeAnswerText(grown);
          let kept = true;
          let first = null;
          for (let end = 1; end <= text.length; end += 1) {
            show(text.slice(0, end));
            if (end === 4) first = grown.firstChild;
            if (end > 4) kept &&= grown.firstChild === first;
          }
          makeAnswerText(whole)(text);
          return [grown.innerHTML, whole.innerHTML, kept];
        }""",
        text,
    )
    assert grown == whole
    assert kept


def test_a_selection_stays_while_the_answer_grows(page: Any) -> None:
    selected = page.evaluate(
        """async () => {
          const { makeAnswerText } = await import("/page/bodies.js");
          const root = document.createElement("div");
          document.querySelector("#messages").append(root);
          const show = makeAnswerText(root);
          show("富士山は**高い**山");
          getSelection().selectAllChildren(root.querySelector("strong"));
          for (const end of ["で", "です。\\n\\n次", "です。\\n\\n次の段落"]) {
            show(`富士山は**高い**山${end}`);
          }
          return String(getSelection());
        }"""
    )
    assert selected == "高い"


@pytest.mark.parametrize(
    "text",
    ["*" * 20_000, "**a" * 5_000, "[" * 10_000, "`" * 10_000 + "a", "> " * 5_000, "- " * 5_000,
     "- a" + "\n" * 20_000, "| a " * 3_000 + "\n" + "|-" * 3_000, "# " + " " * 20_000 + "#",
     "[a](" * 3_000, "_a " * 5_000, "\\" * 10_000, "  - a\n" * 3_000],
    ids=lambda text: json.dumps(text[:8]),
)  # fmt: skip
def test_hostile_text_costs_little(blank: Any, text: str) -> None:
    taken = blank.evaluate(
        """async (text) => {
          const { blocksOf } = await import("/page/markdown.js");
          const begun = performance.now();
          blocksOf(text, () => document.createElement("pre")).map(({ make }) => make());
          return performance.now() - begun;
        }""",
        text,
    )
    assert taken < 2000  # ms; a page that takes longer does not answer the user
