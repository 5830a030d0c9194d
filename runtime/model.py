"""A loaded bundle: text in, text out."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from issun.runtime.decoder import Cache, Decoder, IssunDecoder
from issun.runtime.errors import BundleError, BusyError, ParameterError
from issun.runtime.generate import Clock, FinishReason, Logprob, Segment, Timings, generate
from issun.runtime.manifest import KVCacheType, Manifest, read_manifest
from issun.runtime.optimum import OptimumDecoder
from issun.runtime.prompt import PromptBuilder
from issun.runtime.sampling import Sampler, SamplingParams, Vocabulary
from issun.runtime.session import open_session
from issun.runtime.stream import TextStream
from issun.runtime.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    `text` is without the stop string, control tokens and the final newline; `ids` are the tokens
    drawn, without the end token; `dropped_turns` counts the oldest turns of a conversation that
    were left out of the prompt; `logprobs` has one entry a drawn token where they were asked for.
    """

    text: str
    ids: list[int]
    finish_reason: FinishReason
    timings: Timings
    dropped_turns: int = 0
    logprobs: tuple[Logprob, ...] = ()

    def __str__(self) -> str:
        """The text."""
        return self.text


class Stream:
    """Segments of an answer as they come; `completion` is there when they have ended.

    `cancel()` ends the answer and keeps what has come; `close()`, or forgetting the stream, gives
    the answer up.
    """

    def __init__(
        self,
        segments: Iterator[Segment],
        *,
        eos: int | None,
        held_text: Callable[[], str],
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], None] | None = None,
        on_abandon: Callable[[], None] | None = None,
    ) -> None:
        self._segments, self._held_text = segments, held_text
        self._eos, self._dropped_turns = eos, dropped_turns
        self._on_complete, self._on_abandon = on_complete, on_abandon
        self._pieces: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[Logprob] = []
        self._timings = Timings()
        self.completion: Completion | None = None
        self.open = True

    @property
    def dropped_turns(self) -> int:
        """How many of the oldest turns were left out of the prompt."""
        return self._dropped_turns

    def __iter__(self) -> Self:
        """The stream is its own iterator."""
        return self

    def __next__(self) -> Segment:
        """The next segment; the last one has the finish reason."""
        if not self.open:
            raise StopIteration
        try:
            segment = next(self._segments)
        except KeyboardInterrupt:
            raise  # still open: the caller chooses between cancel() and close()
        except BaseException:
            self.close()
            raise
        self._pieces.append(segment.text)
        self._timings = segment.timings
        if segment.id != self._eos:
            self._ids.append(segment.id)
        if segment.logprob is not None:
            self._logprobs.append(segment.logprob)
        if segment.finish_reason is not None:
            self._end(segment.finish_reason)
        return segment

    def finish(self) -> Completion:
        """Read to the end and give the whole answer."""
        for _ in self:
            pass
        if self.completion is None:
            raise ParameterError("The stream was closed before its end.")
        return self.completion

    def cancel(self) -> Completion:
        """End the answer here and keep what has come; its finish reason is `cancelled`."""
        if self.open:
            self._pieces.append(self._held_text())
            self._end("cancelled")
        return self.finish()

    def close(self) -> None:
        """Give the answer up; nothing of it is kept."""
        if self.open:
            self.open = False
            self._stop_segments()
            if self._on_abandon:
                self._on_abandon()

    def __del__(self) -> None:
        """A forgotten stream is given up."""
        if getattr(self, "open", False):
            self.close()

    def _end(self, reason: FinishReason) -> None:
        self.open = False
        self._stop_segments()
        self.completion = Completion(
            "".join(self._pieces),
            self._ids,
            reason,
            self._timings,
            self._dropped_turns,
            tuple(self._logprobs),
        )
        if self._on_complete:
            self._on_complete(self.completion)

    def _stop_segments(self) -> None:
        close = getattr(self._segments, "close", None)
        if close:
            close()


class Model:
    """A bundle in memory; it serves one caller at a time."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        manifest: Manifest,
        *,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.decoder, self.tokenizer, self.manifest = decoder, tokenizer, manifest
        self.default_params = make_params(manifest)
        self.prompts = PromptBuilder(manifest.prompt, tokenizer, manifest.architecture.n_positions)
        self._clock = clock
        self._vocabulary = Vocabulary(
            rows=manifest.architecture.vocab_size,
            pieces=manifest.tokens.pieces,
            eos=manifest.tokens.eos,
            unk=manifest.tokens.unk,
        )
        self._cache: Cache | None = None  # of prompts outside conversations; its buffers are reused
        self._stream: weakref.ref[Stream] | None = None
        self._closed = False

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        threads: int | None = None,
        kv_cache: KVCacheType | None = None,
    ) -> Self:
        """Open the bundle at `path` with `threads` threads (default: physical cores).

        `kv_cache` picks one of the bundle's graphs, by default the one that its manifest names.
        Raises BundleError when there is no sound bundle or it has no such graph.
        """
        if path is None:
            raise BundleError(
                "This version has no embedded model: name a bundle. "
                "`issun export SOURCE -o DIR` makes one from a checkpoint."
            )
        folder = Path(path)
        manifest = read_manifest(folder)
        kind = kv_cache or manifest.kv_cache
        if kind not in manifest.graphs:
            raise BundleError(
                "{folder} has no graph with a {kind} KV cache; it has {known}. "
                "Export it again with `--kv-cache {kind}`.",
                folder=folder,
                kind=kind,
                known=", ".join(manifest.graphs),
            )
        tokens = manifest.tokens
        tokenizer = Tokenizer(
            folder / tokens.file, tokens.special, do_lower_case=tokens.do_lower_case
        )
        session = open_session(folder / manifest.graphs[kind], threads=threads)
        make_decoder = OptimumDecoder if manifest.graph == "optimum" else IssunDecoder
        return cls(make_decoder(session, manifest.architecture), tokenizer, manifest)

    def prompt(self, instruction: str, input: str | None = None) -> list[int]:  # noqa: A002
        """Ids of an instruction, with or without an input, in the bundle's template."""
        return self.prompts.instruction(instruction, input)

    def generate(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None
    ) -> Completion:
        """The whole answer to `prompt`: raw text, or ids as `Model.prompt` makes them."""
        return self.stream(prompt, params).finish()

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Stream:
        """The answer to `prompt` as it comes; the segments' text joins to `generate`'s."""
        self.check_free()
        if self._cache is None:
            self._cache = self.new_cache()
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self._cache.rewind(0)  # the same call gives the same answer, whatever came before
        return self.start(self._cache, ids, params or self.default_params)

    def score(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every position: (len(ids), vocab) float32, computed in chunks."""
        self.check_free()
        if self._cache is None:
            self._cache = self.new_cache()
        self._cache.rewind(0)
        return np.concatenate(list(self.decoder.score(self._cache, ids)))

    def new_cache(self) -> Cache:
        """An empty KV cache for one sequence; it takes memory as it fills."""
        self._check_open()
        return self.decoder.new_cache()

    def check_free(self) -> None:
        """Raise BusyError while a stream is open, ParameterError when the model is closed."""
        self._check_open()
        stream = self._stream() if self._stream else None
        if stream is not None and stream.open:
            raise BusyError("The model is answering: finish, cancel or close that stream first.")

    def _check_open(self) -> None:
        if self._closed:
            raise ParameterError("The model is closed: load it again.")

    def start(
        self,
        cache: Cache,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        answer: Sequence[int] = (),
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], None] | None = None,
        on_abandon: Callable[[], None] | None = None,
    ) -> Stream:
        """Start an answer on the caller's own cache; see `issun.runtime.generate.generate`."""
        self.check_free()
        text = TextStream(self.tokenizer, self.manifest.prompt.newline, params.stop)
        text.skip(answer)
        segments = generate(
            self.decoder,
            cache,
            prompt,
            params,
            sampler=Sampler(params, self._vocabulary, np.random.default_rng(params.seed)),
            text=text,
            eos=self._vocabulary.eos,
            answer=answer,
            clock=self._clock,
        )
        stream = Stream(
            segments,
            eos=self._vocabulary.eos,
            held_text=text.finish,
            dropped_turns=dropped_turns,
            on_complete=on_complete,
            on_abandon=on_abandon,
        )
        self._stream = weakref.ref(stream)
        return stream

    def close(self) -> None:
        """Give the memory of the session and the cache back; the model cannot be used after."""
        if self._closed:
            return
        if self._stream and (stream := self._stream()):
            stream.close()
        self._cache, self._closed = None, True
        del self.decoder

    def __enter__(self) -> Self:
        """The model itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def make_params(manifest: Manifest, **changes: Any) -> SamplingParams:
    """The bundle's default sampling with `changes`; raises BundleError for a damaged default."""
    try:
        defaults = SamplingParams(**manifest.sampling)
    except (TypeError, ParameterError) as error:
        raise BundleError(
            "The manifest's default sampling is bad: {reason}", reason=error
        ) from error
    return replace(defaults, **changes) if changes else defaults
