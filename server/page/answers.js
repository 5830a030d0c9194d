/** Manages the streaming answer, of which there is at most one, and the last error. */

import { ApiError } from "./api.js";
import { promptOf } from "./conversation.js";

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

  /** Why the answer in `conversation` failed: a text's `key` and the server's `message`; or null. */
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
    const run = newRun(conversation, replaced);
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
      if (choice?.delta?.content) this.#append(run, choice.delta.content);
      this.#given.onText();
    }
  }

  #append(run, text) {
    const now = performance.now();
    const { conversation, message } = run;
    message.content += text;
    run.count += 1;
    run.last = now;
    if (run.count === 1) {
      conversation.messages.push(message);
      run.first = now;
      this.#given.onChange();
    }
    if (now - run.saved < SAVE_EVERY) return;
    run.saved = now;
    this.#given.store.save(conversation);
  }

  #finish(run, error) {
    const { conversation, message, replaced } = run;
    const stopped = error !== null && run.abort.signal.aborted;
    if (message.content) {
      message.state = stateOf(run, error, stopped);
    } else if (error === null) {
      conversation.messages.push(Object.assign(message, { state: "empty" }));
    } else if (replaced) {
      conversation.messages.push(replaced); // no new text, so the old answer is restored
    }
    message.dropped = run.info.dropped_turns || undefined;
    if (error !== null && !stopped) this.#failures.set(conversation.id, failureOf(error));
    if (stopped && !message.content && !replaced) this.#failures.set(conversation.id, { key: "stopped" });
    this.speed = run.info.tokens_per_second ?? speedOf(run) ?? this.speed;
    this.running = this.#given.store.held = null;
    this.#given.store.save(conversation);
    this.#given.onChange();
  }
}

function newRun(conversation, replaced) {
  return {
    conversation,
    replaced,
    message: { role: "assistant", content: "", state: "partial" },
    abort: new AbortController(),
    done: null,
    info: {},
    ended: null,
    count: 0,
    first: 0,
    last: 0,
    saved: 0,
  };
}

/** Tokens per second since the first one, or null while there are too few. */
export function speedOf({ count, first, last }) {
  return last > first ? ((count - 1) * 1000) / (last - first) : null;
}

function requestOf(conversation, model, settings) {
  return {
    model: model.id,
    messages: promptOf(conversation),
    stream: true,
    stream_options: { include_usage: true },
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
