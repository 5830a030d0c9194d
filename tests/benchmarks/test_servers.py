"""Measuring servers: `issun serve`, and a made-up one that sends odd chunks, fails and hangs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import msgspec
import pytest

from issun.benchmarks import openai_stream, servers
from issun.benchmarks.errors import BenchError
from issun.benchmarks.openai_stream import Answer, Server

Write = Callable[[str], None]


def chunk(text: str | None, reason: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], **more}, ensure_ascii=False)}\n\n"


def usage(tokens: int) -> str:
    return f'data: {{"choices": [], "usage": {{"completion_tokens": {tokens}}}}}\n\n'


class Fake:
    """A server whose answers are written by `answer(body, write)`."""

    def __init__(self, answer: Callable[[dict[str, Any], Write], None]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.answer = answer
        self.refuses: tuple[str, ...] = ()
        self.models: Any = {"data": [{"id": "fake"}]}


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            fake.paths.append(self.path)
            self._send(200, json.dumps(fake.models))

        def do_POST(self) -> None:
            fake.paths.append(self.path)
            fake.keys.append(self.headers["Authorization"])
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.bodies.append(body)
            for name in fake.refuses:
                if name in body:
                    return self._send(400, f"unknown field {name}")
            self.send_response(200)
            self.end_headers()

            def write(text: str) -> None:
                self.wfile.write(text.encode())
                self.wfile.flush()

            try:
                return fake.answer(body, write)
            except (BrokenPipeError, ConnectionResetError):
                return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def plain(body: dict[str, Any], write: Write) -> None:
    """A role, two chunks of text 0.1 s apart, usage, and the end mark."""
    write(chunk("", role="assistant"))
    write(chunk("むかし"))
    time.sleep(0.1)
    write(chunk("むかし", "length"))
    write(usage(5))
    write("data: [DONE]\n\n")


def test_times_and_usage_of_a_plain_answer() -> None:
    fake = Fake(plain)
    with serving(fake) as url:
        server = Server(url)
        answer = server.answer("昔話を。", 5)
    assert (answer.error, answer.tokens, answer.new_tokens) == ("", 5, 5)
    assert len(answer.chunks) == 2  # the empty one does not count
    assert 0.05 <= answer.chunks[1] - answer.chunks[0] < 5  # a busy CPU sees the first one late
    assert answer.started < answer.chunks[0]
    assert fake.paths == ["/v1/models", *["/v1/chat/completions"] * 2]
    body = fake.bodies[-1]
    assert (body["model"], body["max_tokens"], body["ignore_eos"]) == ("fake", 5, True)
    assert body["messages"] == [{"role": "user", "content": "昔話を。"}]


@pytest.mark.parametrize(
    ("path", "paths"),
    [
        ("/v1", ["/v1/models", "/v1/chat/completions"]),
        ("/v1/", ["/v1/models", "/v1/chat/completions"]),
        ("/api/v1/completions", ["/api/v1/models", "/api/v1/completions"]),
        ("/v1/chat/completions", ["/v1/models", "/v1/chat/completions"]),
        ("/山 a", ["/%E5%B1%B1%20a/v1/models", "/%E5%B1%B1%20a/v1/chat/completions"]),
    ],
)
def test_the_endpoint_is_part_of_the_url(path: str, paths: list[str]) -> None:
    def completion(body: dict[str, Any], write: Write) -> None:
        kind = "text" if "prompt" in body else "delta"
        text = "あ" if kind == "text" else {"content": "あ"}
        write(f"data: {json.dumps({'choices': [{kind: text, 'finish_reason': 'stop'}]})}\n\n")

    fake = Fake(completion)
    with serving(fake) as url:
        Server(url + path)
    assert fake.paths == paths


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(plain)
    with serving(fake) as url:
        monkeypatch.setenv("OPENAI_API_KEY", "secret\r")  # from a file of Windows
        Server(url, model="named")
        monkeypatch.setenv("OPENAI_API_KEY", "se\ncret")
        with pytest.raises(BenchError, match="The API key has characters") as raised:
            Server(url, model="named")
    assert "cret" not in str(raised.value)
    assert fake.keys == ["Bearer secret"]
    assert fake.bodies[0]["model"] == "named"
    assert fake.paths == ["/v1/chat/completions"]


def test_odd_chunks_are_read() -> None:
    """Comments, events, no space, nulls, reasoning, no choices, usage in every chunk."""

    def odd(_: dict[str, Any], write: Write) -> None:
        write(": keep-alive\n\nevent: message\nid: 3\n")
        write('data:{"choices":[{"delta":{"role":"assistant"}}],"usage":null}\r\n\r\n')
        write('data: {"choices": [{"delta": null}]}\n\ndata: {"id": "x"}\n\n')
        write('data: {"choices": [{"delta": {"reasoning_content": "考"}}]}\n\n')
        write('data: {"choices": [{"delta": {"content": "", "reasoning": "え"}}]}\n\n')
        write(chunk(None, usage={"completion_tokens": 1}, error=None))
        write(chunk("答", "stop", usage={"completion_tokens": 3}))

    with serving(Fake(odd)) as url:
        answer = Server(url).answer("?", 3)
    assert (answer.error, len(answer.chunks), answer.new_tokens) == ("", 3, 3)


OK = "HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("end", ["\n\n", "\r\r", "\r\n\r\n", "\ndata\ndata:\n\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", ": hello\n\n", "data:\n\n"])
def test_all_line_ends_and_empty_data_are_read(start: str, end: str) -> None:
    body = f"{start}{chunk('あ')}{chunk('い')}data: [DONE]\n\n".replace("\n\n", end)
    with sending(f"{OK}\r\n{body}") as url:
        answer = Server(url, model="named").answer("?", 2)
    assert (answer.error, len(answer.chunks)) == ("", 2)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (f"\r\n{chunk('あ', '')}{chunk('い', '')}", "the stream ended early"),
        ("Transfer-Encoding: chunked\r\n\r\n9\r\n", "the stream ended early"),
        ('\r\n{\n "error":\n "busy"}', 'the answer is no stream: { "error": "busy"}'),
        ("\r\n<html>\n", "the answer is no stream: <html>"),
        ("Content-Encoding: gzip\r\n\r\n\x1f", r"the answer is compressed \(gzip\)"),
        (f"\r\n{chunk('あ')}{chunk(None, 'error')}", "the server gave up: .* 'error'"),
        (f"\r\n{chunk('あ')}{chunk(None, 'abort')}data: [DONE]\n\n", "the server gave up: "),
    ],
)
def test_a_body_without_a_whole_answer_says_why(response: str, error: str) -> None:
    with sending(OK + response) as url, pytest.raises(BenchError, match=f"answer: {error}"):
        Server(url, model="named")


@pytest.mark.parametrize("tokens", [None, 2])
@pytest.mark.parametrize("ending", ["open", "cut"])
def test_an_answer_needs_no_end_mark(
    tokens: int | None, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the connection have to be closed, or closed well."""
    monkeypatch.setattr(openai_stream, "_LINGER", 0.1)
    text = chunk("あ") + chunk("い", "stop") + (usage(tokens) if tokens else "")
    coding = f"Transfer-Encoding: chunked\r\n\r\n{len(text.encode()):x}\r\n"
    with sending(f"{OK}{coding}{text}\r\n", "" if ending == "open" else None) as url:
        answer = Server(url, model="named").answer("?", 2)
    assert (answer.error, answer.tokens, len(answer.chunks)) == ("", tokens, 2)


def failing(text: str) -> Callable[[dict[str, Any], Write], None]:
    """Answers well at first, and then with `text`."""
    calls: list[int] = []

    def answer(body: dict[str, Any], write: Write) -> None:
        calls.append(1)
        if len(calls) == 1:
            plain(body, write)
        else:
            write(text)

    return answer


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (chunk("途中"), "the stream ended early"),
        ("data: {nonsense\n\n", "the stream has a chunk that is not JSON"),
        *(
            (f"data: {data}\n\n", "a chunk has another form than the OpenAI API's")
            for data in (
                "[1]",
                "null",
                '{"choices": [null]}',
                '{"choices": "text"}',
                '{"choices": 3}',
                '{"choices": {"index": 0}}',
                '{"choices": [{"delta": "text"}]}',
                '{"choices": [{"delta": ["text"]}]}',
                "[" * 200_000,
            )
        ),
        ('data: {"error": {"message": "no memory"}}\n\n', "the stream has an error: .*no memory"),
        ("data: [DONE]\n\n", "no text"),
        ("", "the stream ended early"),
    ],
)
def test_a_broken_stream_is_an_error(text: str, error: str) -> None:
    with serving(Fake(failing(text))) as url:
        answer = Server(url).answer("?", 3)
    assert re.match(error, answer.error), answer.error


SLOW = {  # what a server sends at once, and then again and again
    "nothing": ("HTTP/1.1 200 OK\r\n\r\n" + chunk("むかし"), ""),
    "comments": ("HTTP/1.1 200 OK\r\n\r\n" + chunk("むかし"), ": ping\n\n"),
    "bytes of a line": ("HTTP/1.1 200 OK\r\n\r\ndata: ", "x"),
    "bytes of a chunk": ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", "0"),
    "a status line": ("HTTP/1.1", " "),
    "a header": ("HTTP/1.1 200 OK\r\nX: ", "x"),
    "an error": ("HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n", "x"),
    "a list": ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", " "),
}


@contextmanager
def sending(first: str, again: str | None = None) -> Iterator[str]:
    """A server that sends raw text, and goes on with `again` every 0.05 s unless that is None."""
    ended = threading.Event()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            with suppress(OSError):
                self.wfile.write(first.encode())
                while again is not None and not ended.wait(0.05):
                    self.wfile.write(again.encode())

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()


@pytest.mark.parametrize("model", [None, "named"])
@pytest.mark.parametrize("slow", SLOW)
def test_a_server_is_left_at_the_timeout_however_slowly_it_sends(
    slow: str, model: str | None
) -> None:
    with sending(*SLOW[slow]) as url:
        started = time.monotonic()
        with pytest.raises(BenchError, match=r"does not answer: not finished after 0.2 s"):
            Server(url, model=model, timeout=0.2)
        assert 0.2 <= time.monotonic() - started < 4


FIELDS = ("ignore_eos", "stream_options")


@pytest.mark.parametrize("refused", [FIELDS, FIELDS[:1], FIELDS[1:], ()])
def test_only_fields_that_a_server_refuses_are_left_out(refused: tuple[str, ...]) -> None:
    fake = Fake(plain)
    fake.refuses = refused
    with serving(fake) as url:
        server = Server(url)
        assert server.refused == list(refused)
        assert server.answer("?", 3).error == ""
    assert [name for name in FIELDS if name in fake.bodies[-1]] == [
        name for name in FIELDS if name not in refused
    ]


def test_a_server_that_cannot_be_measured_says_why() -> None:
    fake = Fake(plain)
    fake.refuses = ("model",)
    with serving(fake) as url:
        with pytest.raises(BenchError, match="does not answer: status 400: unknown field model"):
            Server(url)
        lists: Any = ({"models": []}, {"data": []}, {"data": [{"id": None}]}, {"data": [3]}, [], 3)
        for fake.models in lists:
            with pytest.raises(BenchError, match="does not list its models: name one with --model"):
                Server(url)
    with pytest.raises(BenchError, match=f"{url} does not answer: .*refused"):
        Server(url)
    wrong = ("http://[::1", "http://x:port", "http://x:99999", "http://a..b:80")
    wrong += (f"http://{'a' * 64}.jp", f"http://{'山' * 60}", "http://x/\n", "http://x/\udc80")
    for bad in ("localhost:8000", "ftp://x", "http://", "/v1", *wrong):
        with pytest.raises(BenchError, match="is no URL of a server"):
            Server(bad)


@pytest.mark.parametrize("model", [None, "named"])
@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, '{"error": "bad key"}', 'refuses .*status 401: {"error": "bad key"}.*OPENAI_API_KEY'),
        (403, "", r"refuses the request \(status 403: Forbidden\).* variable OPENAI_API_KEY"),
        (
            404,
            "no\n such\r\n\x1b[31m\tpath",
            r"(answer:|models \() ?status 404: no such \[31m path",
        ),
        (307, "", r"(answer:|models \() ?status 307: Temporary Redirect"),
    ],
)
def test_a_server_that_refuses_says_why(
    status: int, body: str, message: str, model: str | None
) -> None:
    reason = HTTPStatus(status).phrase
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(body)}\r\n\r\n"
    with sending(head + body) as url, pytest.raises(BenchError) as caught:
        Server(url, model=model)
    assert re.search(message, str(caught.value)), caught.value
    assert ("--model" in str(caught.value)) == (model is None and status not in (401, 403))


def test_a_models_name_cannot_break_a_table() -> None:
    fake = Fake(plain)
    fake.models = {"data": [{"id": "a|b\nc\x1b[31m\ud800"}]}
    with serving(fake) as url:
        found = servers.measure(
            [Server(url)], concurrency=[1], rounds=1, tokens=5, report=lambda text: None
        )
    assert fake.bodies[-1]["model"] == "a|b\nc\x1b[31m\ud800"
    assert found.levels[0].model == "a|b c[31m"
    assert servers.markdown(found).splitlines()[2].startswith(f"| {url} | a\\|b c[31m | 1 |")
    assert servers.terminal(found).splitlines()[3].startswith(f"{url}  a|b c[31m  ")
    msgspec.json.encode(found)


def test_a_query_is_sent_with_every_request() -> None:
    fake = Fake(plain)
    with serving(fake) as url:
        Server(f"{url}/openai/v1?api-version=1&name=富士#here")
    query = "?api-version=1&name=%E5%AF%8C%E5%A3%AB"
    assert fake.paths == [f"/openai/v1/models{query}", f"/openai/v1/chat/completions{query}"]


@pytest.mark.parametrize("user", ["me:secret", "me", ":secret", ""])
def test_a_password_in_the_url_is_refused_unseen(user: str) -> None:
    with pytest.raises(BenchError, match=r"The URL of host .*OPENAI_API_KEY") as caught:
        Server(f"http://{user}@host:8000/v1")
    assert "secret" not in str(caught.value)


def test_a_level_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of two clients; one of the four answers fails, and does not count."""
    answers = [
        Answer(0.0, [1.0, 2.0, 3.0], 5),
        Answer(0.0, [2.0, 2.5], 2),
        Answer(0.0, [3.0], 4),  # in one chunk, which says nothing about the time of a token
        Answer(0.0, [9.0], None, error="broken"),
    ]
    server: Any = type("S", (), {"url": "http://s", "model": "m", "refused": []})()
    server.answer = lambda prompt, tokens: answers.pop(0)
    ticks = iter([-0.5, -1.0])  # when a round starts; the failed answer's end does not count
    monkeypatch.setattr(servers.time, "perf_counter", lambda: next(ticks))
    said: list[str] = []
    found = servers.measure([server], concurrency=[2], rounds=2, tokens=5, report=said.append)
    (level,) = found.levels
    assert said == ["round 1 of 2: http://s, 2 clients", "round 2 of 2: http://s, 2 clients"]
    assert (level.requests, level.errors, level.first_error) == (4, 1, "broken")
    assert (level.new_tokens, level.counted) == (11, "usage")
    assert level.ttft is not None
    assert level.ttft.p50 == 2.0
    assert level.itl is not None
    assert level.itl.p50 == 1.0  # of 1.0, 1.0 and 0.5
    assert level.chunks == 6
    # 2 s for two chunks of 5/3 tokens, 0.5 s for one chunk of a token.
    assert level.tpot == pytest.approx((2 / (10 / 3) + 0.5) / 2)
    assert level.throughput == pytest.approx((7 / 3.5 + 4 / 4) / 2)
    text = servers.terminal(found)
    assert "http://s, 2 clients: 1 errors, the first: broken" in text


def test_servers_and_levels_take_turns_and_share_a_table() -> None:
    no_usage = Fake(lambda body, write: write(chunk("あ") + chunk("い", "stop")))
    no_usage.refuses = ("ignore_eos",)
    said: list[str] = []
    with serving(Fake(plain)) as one, serving(no_usage) as other:
        found = servers.measure(
            [Server(one), Server(other)], concurrency=[1, 3], rounds=2, tokens=5, report=said.append
        )
    order = [(one, 1), (other, 1), (one, 3), (other, 3)]
    assert said == [
        f"round {number} of 2: {url}, {clients} clients"
        for number in (1, 2)
        for url, clients in order
    ]
    assert [(level.url, level.concurrency) for level in found.levels] == [
        *((one, 1), (one, 3), (other, 1), (other, 3))
    ]
    assert [level.requests for level in found.levels] == [2, 6, 2, 6]
    assert [level.counted for level in found.levels] == ["usage", "usage", "chunks", "chunks"]
    assert found.notes == [
        f"{one}: chunks hold about 2.5 tokens, and ITL is the time between chunks.",
        f"{other} refuses ignore_eos: its answers may be shorter than asked for.",
        f"{other} reports no usage: its tokens are counted as chunks.",
        f"{other}: answers have fewer tokens than asked for (2 of 5 on average), which raises the "
        "share of prefill in the throughput.",
    ]
    prompts = {body["messages"][0]["content"] for body in no_usage.bodies}
    assert len(prompts) == 1 + 8  # the first answer's, and each is new
    for text in (servers.terminal(found), servers.markdown(found)):
        assert text.count(one) == 3  # two rows and a note
        assert found.notes[0] in text
    assert msgspec.json.decode(msgspec.json.encode(found), type=servers.ServerResults) == found


@pytest.mark.parametrize(
    ("tokens", "believed"),
    [
        *((good, good) for good in (1, 5, 6)),
        *((bad, None) for bad in (0, -5, True, 5.0, "5", [5], {"a": 5}, 50, 10**30)),
        *((bad, None) for bad in (float("nan"), float("inf"))),
    ],
)
def test_a_usage_that_cannot_be_true_is_none(tokens: Any, believed: int | None) -> None:
    def answered(_: dict[str, Any], write: Write) -> None:
        write(chunk("あ", usage={"completion_tokens": 1}) + chunk("い", "stop"))
        write(f"data: {json.dumps({'usage': {'completion_tokens': tokens}})}\n\ndata: [DONE]\n\n")

    with serving(Fake(answered)) as url:
        answer = Server(url, model="named").answer("?", 5)
    assert (answer.error, answer.tokens, answer.new_tokens) == ("", believed, believed or 2)


@pytest.mark.parametrize(
    ("tokens", "size", "notes"),
    [
        (16, 1, []),
        (3, 1, ["answers have fewer tokens than asked for (3 of 16 on average), which"]),
        (16, 8, ["chunks hold about 8 tokens, and ITL is the time between chunks."]),
        (16, 16, ["chunks hold about 16 tokens, and ITL is the time between chunks."]),
    ],
)
def test_what_makes_answers_differ_is_noted(tokens: int, size: int, notes: list[str]) -> None:
    """A chunk of `size` tokens takes as many times 0.01 s."""
    server: Any = type("S", (), {"url": "http://s", "model": "m", "refused": []})()
    times = [0.01 * number for number in range(size, tokens + 1, size)]
    server.answer = lambda prompt, asked: Answer(0.0, times, tokens)
    found = servers.measure(
        [server], concurrency=[1], rounds=1, tokens=16, report=lambda text: None
    )
    assert len(found.notes) == len(notes)
    for note, text in zip(found.notes, notes, strict=True):
        assert note.startswith(f"http://s: {text}")
    assert found.levels[0].tpot == (None if size == 16 else pytest.approx(0.01))


def test_all_answers_fail() -> None:
    with serving(Fake(failing("data: {nonsense\n\n"))) as url:
        found = servers.measure(
            [Server(url)], concurrency=[2], rounds=1, tokens=5, report=lambda text: None
        )
    (level,) = found.levels
    assert (level.errors, level.ttft, level.itl, level.tpot) == (2, None, None, None)
    assert level.throughput is None
    assert " - " in servers.terminal(found)
