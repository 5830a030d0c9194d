"""A loaded bundle, which generates text from text."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from issun.runtime.adapter import Adapter, OpenAdapter, open_adapters
from issun.runtime.checks import check_manifest, check_prompts
from issun.runtime.constraint.preparation import Preparation
from issun.runtime.decoding.answer import Completion, Stream
from issun.runtime.decoding.batch import Job, generate_batch, make_jobs
from issun.runtime.decoding.beam_search import beam_search
from issun.runtime.decoding.beams import BeamParams
from issun.runtime.decoding.best_of import best_samples, sample_params
from issun.runtime.decoding.busy import ExclusiveUse, UsageLock
from issun.runtime.decoding.decoder import Decoder, IssunDecoder
from issun.runtime.decoding.draft_table import DraftTable, bundle_draft_table
from issun.runtime.decoding.drafts import Drafts, Predictions
from issun.runtime.decoding.dry import BreakerFinder
from issun.runtime.decoding.generate import (
    Clock,
    RequestState,
    Stop,
    check_prompt,
    generate,
    never,
    prefill,
)
from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.decoding.prompt_cache import PromptCache, bundle_fingerprint
from issun.runtime.decoding.sampling import Sampler, SamplingParams, Vocabulary
from issun.runtime.decoding.scoring import Progress
from issun.runtime.defaults import make_beam_params, make_params
from issun.runtime.demonstration import bundle_folder
from issun.runtime.errors import Notify, ParameterError, check_range
from issun.runtime.manifest import (
    ALWAYS_VERIFIED_BYTES,
    KVCacheType,
    Manifest,
    read_manifest,
    verify_hashes,
)
from issun.runtime.opening import open_decoder
from issun.runtime.scores import By, RankedContinuation, TextScore, rank, score_text
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.stream import TextStream
from issun.runtime.text.tokenizer import Tokenizer, load_tokenizer
from issun.runtime.weights.memory_left import memory_for
from issun.runtime.weights.weight_cache import default_cache

if TYPE_CHECKING:
    from issun.runtime.constraint.constraints import Constraints

_LARGE_CACHE = 100 << 20  # bytes of keys and values


class Model:
    """A loaded bundle; it serves one caller at a time."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        manifest: Manifest,
        *,
        prompts: PromptBuilder | None = None,
        prompt_cache: tuple[Path, str] | None = None,
        adapters: Mapping[str, OpenAdapter] | None = None,
        draft_table: DraftTable | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Use `load` instead; `prompt_cache` is the prompt cache's folder and its fingerprint."""
        self.adapters = adapters or {}  # by name
        self.draft_table = draft_table
        self.decoder, self.tokenizer, self.manifest = decoder, tokenizer, manifest
        self.default_params = make_params(manifest)
        self.prompts = prompts or PromptBuilder.of(manifest, tokenizer)
        self._clock = clock
        self._vocabulary = Vocabulary(
            rows=manifest.architecture.vocab_size,
            pieces=manifest.tokens.pieces,
            ends=manifest.tokens.end_ids,
            unk=manifest.tokens.unk,
            added=tokenizer.added_ids,
        )
        self._prompt_cache = (
            PromptCache(*prompt_cache, self.prompts.constant_prefixes()) if prompt_cache else None
        )
        self._cache: Cache | None = None  # for prompts outside conversations, reused
        self._caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        self._usage = UsageLock(self._free_if_closed)
        self._stream: weakref.ref[Stream] | None = None
        self._closed = self._freed = False
        self.preparation = Preparation(self._make_constraints)
        self._free_lock = threading.RLock()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        threads: int | None = None,
        kv_cache: KVCacheType | None = None,
        keep_packed: bool = True,
        adapters: Sequence[str | Path | Adapter] = (),
        trust: bool = False,
        notify: Notify = lambda template, **values: None,
    ) -> Self:
        """Load the bundle at `path` and run it with `threads` threads (default: physical cores).

        Without a path, load the demonstration model.

        `kv_cache` selects one of the bundle's graphs; the default is set in its manifest. With
        `trust`, the graph may contain operators that issun does not export; see SECURITY.md. With
        `keep_packed`, weights packed for this CPU are cached on disk, and later loads map them.
        `adapters` are files that `issun adapter` made for this bundle; calls choose one by its
        name. They share the packed weights; without those, a copy of the weights is loaded.
        `notify` receives a message template and its values for slow steps and fallbacks.
        Raises BundleError if the bundle is missing or damaged, or has no such graph, and
        AdapterError if an adapter is missing, damaged or of another bundle.
        """
        folder = bundle_folder(path)
        manifest = read_manifest(folder)
        # A tokenizer's parser must not see a tokenizer file that was damaged or replaced.
        verify_hashes(folder, manifest, largest=ALWAYS_VERIFIED_BYTES)
        tokenizer = load_tokenizer(folder, manifest.tokens)
        check_manifest(folder, manifest, tokenizer.num_pieces)
        prompts = PromptBuilder.of(manifest, tokenizer)
        check_prompts(folder, prompts)
        opened = open_adapters(adapters, folder, manifest)
        state = bundle_fingerprint(folder, manifest)
        cache = default_cache() if keep_packed else None
        decoder, entry = open_decoder(
            folder,
            manifest,
            kv_cache,
            cache,
            threads=threads,
            trust=trust,
            notify=notify,
            adapters=list(opened.values()),
        )
        return cls(
            decoder,
            tokenizer,
            manifest,
            prompts=prompts,
            prompt_cache=(entry, state) if entry else None,
            adapters=opened,
            draft_table=bundle_draft_table(folder, manifest),
        )

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the ids of raw text, after the tokens that begin a text; ids stay as they are."""
        if not isinstance(prompt, str):
            return list(prompt)
        return [*self.manifest.tokens.begin, *self.tokenizer.encode(prompt)]

    def prompt(self, instruction: str, input: str | None = None) -> list[int]:  # noqa: A002
        """Return the ids of an instruction, with optional input, in the bundle's template."""
        return self.prompts.instruction(instruction, input)

    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        adapter: str | None = None,
    ) -> Completion:
        """Return the whole answer to `prompt`: raw text, or ids from `Model.prompt`."""
        stream = self.stream(prompt, params, adapter=adapter)
        try:
            return stream.finish()
        except BaseException:  # Ctrl-C leaves a stream open, and only this method has this one
            stream.close()
            raise

    def stream(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        adapter: str | None = None,
    ) -> Stream:
        """Stream the answer to `prompt`; the joined text of the segments equals `generate`'s.

        `adapter` names one of the loaded adapters; None is the bundle alone. Raises ContextError if
        the prompt leaves no room for a token, ParameterError for ids out of range or an unknown
        adapter, and BusyError while another stream is open.
        """
        # Nothing of earlier prompts is reused, so that the same call gives the same answer.
        return self.start(
            self._own_cache(),
            self.encode(prompt),
            params or self.default_params,
            adapter=adapter,
            reuse=False,
            on_complete=lambda _: self._free_large_cache(),
            on_abandon=self._free_large_cache,
        )

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapter: str | Sequence[str | None] | None = None,
        slots: int = 16,
        on_complete: Callable[[int, Completion], object] = lambda index, completion: None,
    ) -> list[Completion]:
        """Return the answers to all `prompts`, running up to `slots` of them as one batch.

        Each answer is the one that its prompt gets alone, with two exceptions. int4 kernels round
        several rows differently from a single row. Except with an int8 KV cache and int8 linears,
        attention also rounds by how the rows are grouped, which differs if lookup verifies a draft
        or if prompts share a prefix, which is computed separately from the rest.

        `params` and `adapter` apply to all prompts, or have one entry per prompt; a batch may mix
        adapters. `on_complete` receives the index of a prompt and its answer as soon as that has
        ended. Optimum's graphs run one prompt after another. Raises as `stream` does, before any
        work.
        """
        self.check_free()
        if isinstance(prompts, str):
            raise ParameterError("prompts is a single text: pass a list of texts.")
        jobs = make_jobs(
            self.decoder,
            [self.encode(prompt) for prompt in prompts],
            self.default_params if params is None else params,
            adapter,
        )
        check_range("slots", slots, Integral, 1, math.inf)
        for job in jobs:
            self.check_adapter(job.adapter)
            self._sampler(job.params)  # raises for ids out of range
        completions: dict[int, Completion] = {}
        with closing(self._run_jobs(jobs, slots)) as answers:
            for index, completion in answers:
                completions[index] = completion
                on_complete(index, completion)
        return [completions[job.index] for job in jobs]

    def beam_search(
        self, prompt: str | Sequence[int], params: BeamParams | None = None
    ) -> list[Completion]:
        """Return the best answers that beam search finds to `prompt`, the best first.

        Without `params`, four beams with the bundle's default penalties, bans and lengths. The
        beams need a KV cache of their own each, and a step computes all of them in one batch.
        There may be fewer answers than `num_return_sequences` if most tokens are banned. Raises as
        `stream` does, OutOfMemoryError if the beams do not fit into memory, and ParameterError for
        a graph that was exported with Optimum, which has no batches.
        """
        if not isinstance(self.decoder, IssunDecoder):
            raise ParameterError(
                "This bundle was exported with Optimum, whose graph cannot search with beams: "
                "export the checkpoint without --via optimum."
            )
        params = params or make_beam_params(self.manifest)
        with self.busy():
            return beam_search(
                self.decoder,
                self.encode(prompt),
                params,
                sampler=Sampler(params, self._vocabulary, np.random.default_rng()),
                make_text=partial(self._text, params),
                ends=self._vocabulary.ends,
                clock=self._clock,
            )

    def sample_n(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        n: int = 1,
        best_of: int | None = None,
    ) -> list[Completion]:
        """Return the best `n` of `best_of` sampled answers to `prompt` (default: `n`).

        The best have the highest mean raw log-probability per token, which is their `score`. With
        a seed, sample i is the answer that `generate` gives with seed + i. The prompt is computed
        once, and the samples run in batches; what that rounds differently is described in
        `generate_many`. Raises as `stream` does, and ParameterError if the temperature is 0, unless
        `best_of` is 1.
        """
        params = params or self.default_params
        self._sampler(params)  # raises for beams, and for ids out of range
        samples = sample_params(params, n, best_of)
        answers = self.generate_many([self.encode(prompt)] * len(samples), samples)
        return best_samples(answers, n, logprobs=params.logprobs > 0)

    @property
    def constraints(self) -> Constraints:
        """Builds constraints for `SamplingParams`: a JSON schema, choices, a regular expression.

        Raises ParameterError if llguidance (the extra `server`) is not installed.
        """
        return self.preparation.constraints

    def score(self, ids: Sequence[int], *, adapter: str | None = None) -> NDArray[np.float32]:
        """Return the logits of every position, (len(ids), vocab_size) float32."""
        self.check_adapter(adapter)
        cache = self._own_cache()
        with self.busy():
            cache.rewind(0)
            cache.choose_adapter(adapter)
            with memory_for(len(ids)):
                logits = np.empty((len(ids), self._vocabulary.rows), np.float32)
            done = 0
            for chunk in self.decoder.score(cache, ids):
                logits[done : done + len(chunk)] = chunk
                done += len(chunk)
            self._free_large_cache()
            return logits

    def score_text(
        self,
        text: str,
        *,
        window: int | None = None,
        stride: int | None = None,
        progress: Progress = lambda done, total: None,
    ) -> TextScore:
        """Return the log-probability of every token of raw `text` that has a context.

        The tokens are read in windows of `window` (default: the context), each `stride` (default:
        half a window) after the one before, and scored in the first window that has them: with at
        least `window - stride` tokens before them, except in the first window. The bundle's begin
        tokens, if it has any, are read at the start of each window and not scored. `progress` is
        called with the numbers of tokens done and in total. Raises ParameterError for values out
        of range, and for a text without a token to score.
        """
        return score_text(self, text, window=window, stride=stride, progress=progress)

    def rank(
        self,
        prompt: str | Sequence[int],
        continuations: Sequence[str],
        *,
        by: By = "token",
        slots: int = 16,
    ) -> list[RankedContinuation]:
        """Return `continuations` of `prompt` by their log-probability, the most likely first.

        `by` is the mean of a token, of a byte of UTF-8, or the total; equals stay in order. The
        prompt, raw text or ids from `Model.prompt`, is computed once; up to `slots` continuations
        form a batch. Each is encoded by itself, as text that follows the prompt, and all of its
        tokens are scored; no end token is added. Raises as `stream` does, and ParameterError for
        a continuation without tokens.
        """
        return rank(self, prompt, continuations, by=by, slots=slots)

    def request_state(
        self, prompt: list[int], params: SamplingParams, reused: int = 0, *, continued: int = 0
    ) -> RequestState:
        """Return the state of an answer to `prompt`, whose first `reused` ids were in the KV cache.

        The answer's text continues the text of the prompt's last `continued` ids. Raises
        ParameterError for ids in `params` that are out of range.
        """
        text = self._text(params)
        text.continue_after(prompt[len(prompt) - continued :])
        return RequestState(
            prompt,
            params,
            sampler=self._sampler(params),
            text=text,
            ends=self._vocabulary.ends,
            n_positions=self.decoder.n_positions,
            reused=reused,
            clock=self._clock,
        )

    def new_drafts(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        predictions: Predictions | None = None,
    ) -> Drafts | None:
        """Return what drafts tokens of the answer after `ids`; None if that is off or cannot pay.

        `predictions` are those of the conversation so far, and get this answer's.
        """
        cost = self.decoder.row_cost
        if cost is None or not params.lookup:
            return None
        return Drafts(ids, cost, predictions or Predictions(self.draft_table))

    def new_cache(self) -> Cache:
        """Return an empty KV cache for one sequence; its memory grows as it fills."""
        self._check_open()
        cache = self.decoder.new_cache()
        self._caches.add(cache)
        return cache

    def check_adapter(self, name: str | None) -> None:
        """Raise ParameterError unless `name` is that of a loaded adapter, or None."""
        if name is not None and name not in self.adapters:
            raise ParameterError(
                "There is no adapter {name!r}; loaded are: {known}.",
                name=name,
                known=", ".join(self.adapters) or "none",
            )

    def kv_id(self, adapter: str | None) -> str:
        """Return the id of everything that keys and values computed with `adapter` depend on."""
        return self.manifest.bundle_id if adapter is None else self.adapters[adapter].id

    def check_free(self) -> None:
        """Raise BusyError while the model is in use, ParameterError if it is closed."""
        with self.busy():
            pass

    def busy(self) -> ExclusiveUse:
        """Return a context manager for exclusive use of the model; raises as `check_free` does."""
        self._check_open()
        return ExclusiveUse(self._usage)

    def start(
        self,
        cache: Cache,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        adapter: str | None = None,
        answer: Sequence[int] = (),
        predictions: Predictions | None = None,
        reuse: bool = True,
        stop: Stop = never,
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], object] = lambda completion: None,
        on_abandon: Callable[[], object] = lambda: None,
    ) -> Stream:
        """Start an answer that uses the caller's cache; see `generate.generate` in `decoding`.

        With `reuse`, the prefix that the cache shares with the prompt is not computed again, if
        `adapter` computed it. The stream closes if `stop()` returns true before a chunk of the
        prompt.
        """
        self.check_adapter(adapter)
        use = self.busy()
        try:
            use.__enter__()
            check_prompt(self.decoder, [*prompt, *answer])  # raise here, not at the first token
            if not reuse:
                cache.rewind(0)
            cache.choose_adapter(adapter)
            text = self._text(params)
            text.resume_after(answer)
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
                prompt_cache=None if adapter else self._prompt_cache,
                drafts=self.new_drafts([*prompt, *answer], params, predictions),
                clock=self._clock,
            )
            stream = Stream(
                lambda asked: segments(stop=lambda: asked() or stop()),
                use,
                ends=self._vocabulary.ends,
                pending_text=text.pause,
                dropped_turns=dropped_turns,
                on_complete=on_complete,
                on_abandon=on_abandon,
            )
            self._stream = weakref.ref(stream)
        except BaseException:
            use.__exit__()
            raise
        return stream

    def read(
        self,
        cache: Cache,
        ids: Sequence[int],
        stop: Stop = never,
        *,
        adapter: str | None = None,
    ) -> int:
        """Prefill the caller's cache with `ids`, until `stop()` returns true before a chunk.

        The prefix that the cache shares with `ids` is kept, if `adapter` computed it. Returns the
        number of tokens computed. Raises as `stream` does.
        """
        self.check_adapter(adapter)
        prompt_cache = None if adapter else self._prompt_cache
        with self.busy():
            cache.choose_adapter(adapter)
            return prefill(self.decoder, cache, ids, prompt_cache=prompt_cache, stop=stop)

    def close(self) -> None:
        """Free the session and the caches; the model cannot be used afterwards.

        If a step is running, as in a call from another thread or a signal handler, the memory is
        freed after that step.
        """
        self._closed = True
        self.preparation.stop()
        self.prompts.close()
        if self._stream and (stream := self._stream()):
            stream.close()
        self._free_if_closed()

    def _free_if_closed(self) -> None:
        """Free everything once the model is closed and no longer in use."""
        with self._free_lock:
            if not self._closed or self._freed or self._usage.active:
                return
            self._freed = True
            for cache in self._caches:
                cache.close()
            self._cache = None
            self.decoder.release()
            del self.decoder

    def _run_jobs(
        self, jobs: Sequence[Job], slots: int
    ) -> Generator[tuple[int, Completion], None, None]:
        if not isinstance(self.decoder, IssunDecoder):
            for job in jobs:
                yield job.index, self.generate(job.prompt, job.params, adapter=job.adapter)
            return
        with self.busy():
            yield from generate_batch(self.decoder, jobs, self.request_state, slots=slots)

    def _make_constraints(self) -> Constraints:
        from issun.runtime.constraint.constraints import Constraints  # noqa: PLC0415

        return Constraints(
            self.tokenizer,
            rows=self._vocabulary.rows,
            ends=self._vocabulary.ends,
            newline=self.manifest.prompt.newline,
            max_tokens=self.default_params.max_new_tokens,
        )

    def _sampler(self, params: SamplingParams) -> Sampler:
        if isinstance(params, BeamParams):
            raise ParameterError(
                "Beam search knows its answer only at the end, so it cannot be streamed: call "
                "beam_search with BeamParams."
            )
        rng = np.random.default_rng(params.seed)
        if not params.dry_multiplier:
            return Sampler(params, self._vocabulary, rng)
        breakers = self._breakers.find(tuple(params.dry_sequence_breakers))
        return Sampler(params, self._vocabulary, rng, breakers)

    @cached_property
    def _breakers(self) -> BreakerFinder:
        newline = self.manifest.prompt.newline
        return BreakerFinder(self.tokenizer, self._vocabulary.rows, newline)

    def _text(self, params: SamplingParams) -> TextStream:
        if params.constraint:
            return params.constraint.text(self.tokenizer, params.stop)
        return TextStream(self.tokenizer, self.manifest.prompt.newline, params.stop)

    def _own_cache(self) -> Cache:
        if self._cache is None:
            self._cache = self.new_cache()
        return self._cache

    def _free_large_cache(self) -> None:
        """Free the memory of a long prompt, which is not reused outside conversations."""
        if self._cache and self._cache.nbytes > _LARGE_CACHE:
            self._cache.rewind(0)
            self._cache.shrink()

    def _check_open(self) -> None:
        if self._closed:
            raise ParameterError("The model is closed: load it again.")

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the model."""
        self.close()
