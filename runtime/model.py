"""A loaded bundle: text in, text out."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from issun.runtime.answer import Completion, Stream
from issun.runtime.batch import Job, generate_batch, make_jobs
from issun.runtime.busy import Usage, Work
from issun.runtime.checks import check_manifest
from issun.runtime.constraint import Constraints
from issun.runtime.constraint.effort import Crowd, Effort
from issun.runtime.decoder import Decoder, IssunDecoder, cut
from issun.runtime.errors import BundleError, Notify, ParameterError
from issun.runtime.files import user_path
from issun.runtime.generate import Clock, Stop, Writer, check_prompt, generate, never
from issun.runtime.kv_cache import Cache
from issun.runtime.lookup import row_cost
from issun.runtime.manifest import SMALL, KVCacheType, Manifest, read_manifest, verify_hashes
from issun.runtime.memory_left import memory_for
from issun.runtime.opening import open_decoder
from issun.runtime.preamble import Preambles, state_of_files
from issun.runtime.prompt import PromptBuilder
from issun.runtime.sampling import Sampler, SamplingParams, Vocabulary
from issun.runtime.stream import TextStream
from issun.runtime.tokenizer import Tokenizer, load_tokenizer
from issun.runtime.weight_cache import default_cache

_MUCH = 100 << 20  # bytes of keys and values
EMBEDDED = Path(__file__).with_name("embedded")  # the small demonstration model


class Model:
    """A bundle in memory; it serves one caller at a time."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        manifest: Manifest,
        *,
        preambles: tuple[Path, str] | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Built by `load`; `preambles` is where they are kept, and what computes them."""
        self.decoder, self.tokenizer, self.manifest = decoder, tokenizer, manifest
        self.default_params = make_params(manifest)
        self.prompts = PromptBuilder(manifest.prompt, tokenizer, manifest.architecture.n_positions)
        self._clock = clock
        self._vocabulary = Vocabulary(
            rows=manifest.architecture.vocab_size,
            pieces=manifest.tokens.pieces,
            ends=manifest.tokens.end_ids,
            unk=manifest.tokens.unk,
            added=tokenizer.ids_beyond,
        )
        self._preambles = Preambles(*preambles, self.prompts.beginnings()) if preambles else None
        self._cache: Cache | None = None  # of prompts outside conversations; its buffers are reused
        self._caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        self._usage = Usage(self._free_if_closed)
        self._stream: weakref.ref[Stream] | None = None
        self._closed = self._freed = False
        self._stopped, self._crowd = threading.Event(), Crowd()  # of compiling constraints
        self._freeing = threading.RLock()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        threads: int | None = None,
        kv_cache: KVCacheType | None = None,
        keep_packed: bool = True,
        trust: bool = False,
        notify: Notify = lambda template, **values: None,
    ) -> Self:
        """Open the bundle at `path` with `threads` threads (default: physical cores).

        Without a path it opens the embedded model, which the package holds.

        `kv_cache` picks one of the bundle's graphs, by default the one that its manifest names.
        With `trust` the graph may hold operators that issun does not write; see SECURITY.md.
        With `keep_packed` weights packed for this CPU are kept in a cache, which later loads map.
        `notify` is told, as a template and its values, what takes long or goes otherwise.
        Raises BundleError when there is no sound bundle or it has no such graph.
        """
        folder = bundle_folder(path)
        manifest = read_manifest(folder)
        # A parser written in C++ does not meet what a damaged disk or a stranger has changed.
        verify_hashes(folder, manifest, largest=SMALL)
        tokenizer = load_tokenizer(folder, manifest.tokens)
        check_manifest(folder, manifest, tokenizer.num_pieces)
        state = state_of_files(folder, manifest)
        cache = default_cache() if keep_packed else None
        decoder, entry = open_decoder(
            folder, manifest, kv_cache, cache, threads=threads, trust=trust, notify=notify
        )
        return cls(decoder, tokenizer, manifest, preambles=(entry, state) if entry else None)

    def prompt(self, instruction: str, input: str | None = None) -> list[int]:  # noqa: A002
        """Ids of an instruction, with or without an input, in the bundle's template."""
        return self.prompts.instruction(instruction, input)

    def generate(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None
    ) -> Completion:
        """The whole answer to `prompt`: raw text, or ids as `Model.prompt` makes them."""
        stream = self.stream(prompt, params)
        try:
            return stream.finish()
        except BaseException:  # Ctrl-C leaves a stream open, and this one nobody else knows
            stream.close()
            raise

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Stream:
        """The answer to `prompt` as it comes; the segments' text joins to `generate`'s.

        Raises ContextError when no token fits behind the prompt, ParameterError for ids out of
        range, BusyError while another stream is open.
        """
        # Nothing of earlier prompts is reused: the same call gives the same answer.
        return self.start(
            self._own_cache(),
            self._ids(prompt),
            params or self.default_params,
            reuse=False,
            on_complete=lambda _: self._give_back(),
            on_abandon=self._give_back,
        )

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        slots: int = 16,
        on_complete: Callable[[int, Completion], object] = lambda place, completion: None,
    ) -> list[Completion]:
        """The whole answers to all `prompts`, up to `slots` at a time, each as it is alone.

        The text may differ in int4, which rounds several rows otherwise than one; and, but with an
        int8 KV cache on int8 linears, where lookup reads several rows of a single answer at once,
        or prompts share a beginning, which is read apart from their rests.
        `params` are for all prompts, or one for each. `on_complete` gets the place of a prompt and
        its answer when that has ended. Optimum's graphs answer one after the other. Raises as
        `stream` does, before any work.
        """
        self.check_free()
        if isinstance(prompts, str):
            raise ParameterError("The prompts are one text: give a list of texts.")
        jobs = make_jobs(
            self.decoder,
            [self._ids(prompt) for prompt in prompts],
            self.default_params if params is None else params,
        )
        if not isinstance(slots, int) or slots < 1:
            raise ParameterError("slots is {value!r}, it must be 1 or more.", value=slots)
        for job in jobs:
            self._sampler(job.params)  # refuses ids out of range
        completions: dict[int, Completion] = {}
        with closing(self._answer(jobs, slots)) as answers:
            for place, completion in answers:
                completions[place] = completion
                on_complete(place, completion)
        return [completions[job.place] for job in jobs]

    @cached_property
    def constraints(self) -> Constraints:
        """Makes constraints for `SamplingParams`: a JSON schema, choices, a regular expression.

        Raises ParameterError where llguidance (the extra `server`) is not installed.
        """
        try:
            return Constraints(
                self.tokenizer,
                rows=self._vocabulary.rows,
                ends=self._vocabulary.ends,
                newline=self.manifest.prompt.newline,
                room=self.default_params.max_new_tokens,
            )
        except ModuleNotFoundError as error:
            raise ParameterError(
                "Constrained answers need {module}: pip install 'issun[server]'",
                module=error.name,
            ) from error

    def effort(self) -> Effort:
        """What one schema may cost until it is ready."""
        return Effort(self._stopped.is_set, self._finds, self._crowd)

    def _finds(self, pattern: str, text: str) -> bool:
        return self.constraints.finds(pattern, text)  # only now: few schemas need llguidance

    def stop_compiling(self) -> None:
        """End the compiling of constraints: whoever waits for it gets BusyError."""
        self._stopped.set()
        if "constraints" in vars(self):
            self.constraints.close()

    def resume_compiling(self) -> None:
        """Let constraints be compiled again, after `stop_compiling`."""
        self._stopped = threading.Event()
        vars(self).pop("constraints", None)

    def score(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every position: (len(ids), vocab) float32, computed in chunks."""
        cache = self._own_cache()
        with self.busy():
            cache.rewind(0)
            with memory_for(len(ids)):
                logits = np.empty((len(ids), self._vocabulary.rows), np.float32)
            done = 0
            for chunk in self.decoder.score(cache, ids):
                logits[done : done + len(chunk)] = chunk
                done += len(chunk)
            self._give_back()
            return logits

    def writer(
        self, prompt: list[int], params: SamplingParams, reused: int = 0, *, continued: int = 0
    ) -> Writer:
        """What makes an answer of the logits behind `prompt`, of which `reused` ids were known.

        The answer's text continues that of the last `continued` ids. Raises ParameterError for ids
        in `params` that are out of range.
        """
        text = self._text(params)
        text.follow(prompt[len(prompt) - continued :])
        return Writer(
            prompt,
            params,
            sampler=self._sampler(params),
            text=text,
            ends=self._vocabulary.ends,
            n_positions=self.decoder.n_positions,
            reused=reused,
            clock=self._clock,
        )

    def new_cache(self) -> Cache:
        """An empty KV cache for one sequence; it takes memory as it fills."""
        self._check_open()
        cache = self.decoder.new_cache()
        self._caches.add(cache)
        return cache

    def check_free(self) -> None:
        """Raise BusyError while the model works, ParameterError when it is closed."""
        with self.busy():
            pass

    def busy(self) -> Work:
        """A use of the model to enter, so that nothing else works with it; see `check_free`."""
        self._check_open()
        return Work(self._usage)

    def start(
        self,
        cache: Cache,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        answer: Sequence[int] = (),
        reuse: bool = True,
        stop: Stop = never,
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], object] = lambda completion: None,
        on_abandon: Callable[[], object] = lambda: None,
    ) -> Stream:
        """Start an answer on the caller's own cache; see `issun.runtime.generate.generate`.

        With `reuse` what the cache shares with the prompt is not computed again. The stream is
        closed where `stop()` is true before a chunk of the prompt.
        """
        work = self.busy()
        try:
            work.__enter__()
            check_prompt(self.decoder, [*prompt, *answer])  # at the call, not at the first token
            if not reuse:
                cache.rewind(0)
            text = self._text(params)
            text.skip(answer)
            segments = partial(
                generate,
                self.decoder,
                cache,
                prompt,
                params,
                sampler=self._sampler(params),
                text=text,
                ends=self._vocabulary.ends,
                answer=answer,
                preambles=self._preambles,
                row_cost=self._row_cost(params),
                clock=self._clock,
            )
            stream = Stream(
                lambda asked: segments(stop=lambda: asked() or stop()),
                work,
                ends=self._vocabulary.ends,
                held_text=text.pause,
                dropped_turns=dropped_turns,
                on_complete=on_complete,
                on_abandon=on_abandon,
            )
            self._stream = weakref.ref(stream)
        except BaseException:
            work.__exit__()
            raise
        return stream

    def read(self, cache: Cache, ids: Sequence[int], stop: Stop = never) -> int:
        """Read `ids` into the caller's own cache, until `stop()` is true before a chunk.

        What the cache shares with them is kept. Gives how many tokens were read. Raises as
        `stream` does.
        """
        with self.busy():
            check_prompt(self.decoder, ids)
            begin = self._preambles.fill(cache, ids) if self._preambles else 0
            shared = cache.keep_common_prefix(ids)
            rest = ids[max(shared, begin) :]
            # A lone row is left to be read with what follows: attention rounds it otherwise.
            for chunk in chain(cut(ids[:begin]), cut(rest) if len(rest) > 1 else ()):
                if stop():
                    break
                self.decoder.forward(cache, [chunk], [])
            if begin and self._preambles:
                self._preambles.keep(cache)
            return len(cache.ids[0]) - shared

    def close(self) -> None:
        """Give the memory of the session and the caches back; the model cannot be used after.

        From another thread or a signal handler it does so when the step that runs has ended.
        """
        self._closed = True
        self.stop_compiling()
        if self._stream and (stream := self._stream()):
            stream.close()
        self._free_if_closed()

    def _free_if_closed(self) -> None:
        """Let go of everything once the model is closed and nothing works with it any more."""
        with self._freeing:
            if not self._closed or self._freed or self._usage.active:
                return
            self._freed = True
            for cache in self._caches:
                cache.close()
            self._cache = None
            self.decoder.pages.release()
            del self.decoder

    def _answer(
        self, jobs: Sequence[Job], slots: int
    ) -> Generator[tuple[int, Completion], None, None]:
        if not isinstance(self.decoder, IssunDecoder):
            for job in jobs:
                yield job.place, self.generate(job.prompt, job.params)
            return
        with self.busy():
            yield from generate_batch(self.decoder, jobs, self.writer, slots=slots)

    def _row_cost(self, params: SamplingParams) -> float | None:
        ours = isinstance(self.decoder, IssunDecoder) and params.lookup
        return row_cost(self.manifest.precision.name) if ours else None

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _sampler(self, params: SamplingParams) -> Sampler:
        return Sampler(params, self._vocabulary, np.random.default_rng(params.seed))

    def _text(self, params: SamplingParams) -> TextStream:
        if params.constraint:
            return params.constraint.text(self.tokenizer, params.stop)
        return TextStream(self.tokenizer, self.manifest.prompt.newline, params.stop)

    def _own_cache(self) -> Cache:
        if self._cache is None:
            self._cache = self.new_cache()
        return self._cache

    def _give_back(self) -> None:
        """Let the memory of a long prompt go: outside conversations none of it is read again."""
        if self._cache and self._cache.nbytes > _MUCH:
            self._cache.rewind(0)
            self._cache.shrink()

    def _check_open(self) -> None:
        if self._closed:
            raise ParameterError("The model is closed: load it again.")

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


def bundle_folder(path: str | Path | None) -> Path:
    """The folder of a bundle as a user names it, or of the embedded model where none is named."""
    return EMBEDDED if path is None else user_path(path)


def make_params(manifest: Manifest, **changes: Any) -> SamplingParams:
    """The bundle's default sampling with `changes`; raises BundleError for a damaged default.

    A shorter answer that is asked for goes before the bundle's `min_new_tokens`.
    """
    try:
        defaults = SamplingParams(**{k: _frozen(v) for k, v in manifest.sampling.items()})
    except (TypeError, ParameterError) as error:
        raise BundleError(
            "The manifest's default sampling is bad: {reason}", reason=error
        ) from error
    most = changes.get("max_new_tokens")
    if isinstance(most, int) and most > 0:
        changes.setdefault("min_new_tokens", min(defaults.min_new_tokens, most))
    return replace(defaults, **changes) if changes else defaults


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
