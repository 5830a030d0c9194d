/** Manages the streaming answer, of which there is at most one, and the last error. */

import { ApiError } from "./api.js";
import { promptOf } from "./conversation.js";

const FEWEST = 20; // tokens; a speed of fewer would be chance
const SAVE_EVERY = 1000; // ms; a reload during an answer loses at most this much

export class Answers {
  /** The streaming answer: its conversation, its message, and the server's progress report. */
  running = null;

  /** Tokens per second of the previous answer, or null. */
  speed = null;

  #failures = new Map();
  #given;

  /** `onText` is called for every part of the text, `onChange` when an answer starts or ends. */
  constructor({ api, store, settings, onChange, onText }) {
    this.#given = { api, store, settings, onChange, onText };
  }

  /**
   * Why the answer in `conversation` failed: a text's `key`, the server's `message`, and whether it
   * continued one; or null.
   */
  failure({ id }) {
    return this.#failures.get(id) ?? null;
  }

  forgetFailure({ id }) {
    this.#failures.delete(id);
  }

  /** Answer the last message of `conversation`, replacing an existing answer. */
  ask(conversation) {
    const { messages } = conversation;
    const replaced = messages.at(-1)?.role === "assistant" ? messages.pop() : null;
    return this.#start(newRun(conversation, { replaced }));
  }

  /** Continue the answer at the end of `conversation`. */
  continue(conversation) {
    return this.#start(newRun(conversation, { message: conversation.messages.at(-1) }));
  }

  #start(run) {
    const { conversation } = run;
    this.running = run;
    this.#given.store.held = conversation.id;
    this.forgetFailure(conversation);
    this.#given.onChange();
    run.done = this.#complete(run);
    return run.done;
  }

  /** Save the conversation, with the old answer until the new one has text. */
  keep() {
    if (!this.running) return;
    const { conversation, message, replaced } = this.running;
    const old = replaced && !message.content;
    if (old) conversation.messages.push(replaced);
    this.#given.store.save(conversation);
    if (old) conversation.messages.pop();
  }

  /** Stop the answer; its text so far stays in the conversation. */
  async stop() {
    this.running?.abort.abort();
    await this.running?.done;
  }

  async #complete(run) {
    let error = null;
    try {
      await this.#receive(run);
    } catch (caught) {
      error = caught;
    }
    this.#finish(run, error);
    return run;
  }

  async #receive(run) {
    const { api, settings } = this.#given;
    const { signal } = run.abort;
    const model = await api.model(signal);
    signal.throwIfAborted();
    for await (const chunk of api.complete(requestOf(run.conversation, model, settings), signal)) {
      const choice = chunk.choices?.[0];
      Object.assign(run.info, chunk.issun);
      run.ended = choice?.finish_reason ?? run.ended;
      run.usage = chunk.usage ?? run.usage;
      if (choice?.delta?.content) this.#append(run, choice.delta.content);
      this.#given.onText();
    }
  }

  #append(run, text) {
    const now = performance.now();
    const { conversation, message } = run;
    message.content += text;
    run.count += 1;
    run.last = { time: now, tokens: tokensOf(run) };
    if (run.count === 1) {
      if (conversation.messages.at(-1) !== message) conversation.messages.push(message);
      run.first = run.last;
      this.#given.onChange();
    }
    if (now - run.saved < SAVE_EVERY) return;
    run.saved = now;
    this.#given.store.save(conversation);
  }

  #finish(run, error) {
    const { conversation, message, replaced } = run;
    const stopped = error !== null && run.abort.signal.aborted;
    if (run.count > 0) {
      message.state = stateOf(run, error, stopped);
    } else if (error === null && message.content) {
      message.state = undefined; // there was nothing to add
    } else if (error === null) {
      conversation.messages.push(Object.assign(message, { state: "empty" }));
    } else if (replaced) {
      conversation.messages.push(replaced); // no new text, so the old answer is restored
    }
    message.dropped = run.info.dropped_turns || undefined;
    message.used = run.usage?.total_tokens ?? message.used;
    const { isContinued } = run;
    if (error !== null && !stopped) {
      this.#failures.set(conversation.id, Object.assign(failureOf(error), { isContinued }));
    }
    if (stopped && !message.content && !replaced) this.#failures.set(conversation.id, { key: "stopped" });
    this.speed = tokensOf(run) < FEWEST ? null : (run.info.tokens_per_second ?? speedOf(run));
    this.running = this.#given.store.held = null;
    this.#given.store.save(conversation);
    this.#given.onChange();
  }
}

function newRun(conversation, { replaced = null, message = null }) {
  return {
    conversation,
    replaced,
    message: message ?? { role: "assistant", content: "", state: "partial" },
    isContinued: message !== null,
    abort: new AbortController(),
    done: null,
    info: {},
    ended: null,
    usage: null, // of the server's latest chunk that had one
    count: 0, // parts of the text
    first: null, // time and tokens of the first part, and of the latest
    last: null,
    saved: 0,
  };
}

/** Tokens of the answer so far; a server that does not count them sends one in each part. */
const tokensOf = ({ usage, count }) => usage?.completion_tokens ?? count;

/** Tokens per second since the first one, or null while there are too few. */
export function speedOf(run) {
  const { first, last } = run;
  if (tokensOf(run) < FEWEST || !(last?.time > first.time)) return null;
  return ((last.tokens - first.tokens) * 1000) / (last.time - first.time);
}

/** Tokens of the context that `messages` take, or `run`, the answer being generated, if given. */
export function usedBy(messages, run) {
  const latest = messages.findLast(({ used }) => used !== undefined)?.used ?? 0;
  return run ? (run.usage?.total_tokens ?? run.info.prompt_tokens ?? latest) : latest;
}

function requestOf(conversation, model, settings) {
  return {
    model: model.id,
    messages: promptOf(conversation),
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    progress: true,
    ...settings.sampling(model),
  };
}

function stateOf(run, error, stopped) {
  if (stopped) return "stopped";
  if (error !== null) return "error";
  return run.ended === "length" ? "length" : undefined;
}

function failureOf(error) {
  if (error instanceof ApiError) return error;
  console.error(error);
  return { key: "errorUnexpected", message: String(error) };
}
