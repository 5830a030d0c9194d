"""What the tests of a site do in its page."""

from __future__ import annotations

from typing import Any

from issun.runtime import Conversation, Model, SamplingParams
from tests.page.driving import ask

GREEDY = SamplingParams(temperature=0, max_new_tokens=100)


def wait_until_ready(page: Any) -> None:
    page.get_by_test_id("status").get_by_text("準備完了").wait_for()


def answer_to(page: Any, question: str) -> str:
    """The page's answer to the next question."""
    ask(page, question)
    page.get_by_test_id("message-user").get_by_text(question, exact=True).last.wait_for()
    page.get_by_test_id("stop").wait_for(state="hidden")
    page.get_by_test_id("regenerate").wait_for()
    answers = page.get_by_test_id("message-assistant").get_by_test_id("message-text")
    text: str = answers.last.inner_text()
    return text


def pythons_answers(questions: list[str], role: str = "") -> list[str]:
    """The same conversation with the embedded model in Python."""
    with Model.load(threads=1) as model:
        chat = Conversation(model, role, params=GREEDY)
        return [chat.reply(question).text for question in questions]
