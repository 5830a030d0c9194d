/** The model of this site, in place of a server: the same calls, answered by a worker of the page. */

import { make } from "./dom.js";
import { showDownload, showLine } from "./lines.js";
import { prepareSite } from "./site.js";

const RETRY = 30_000; // ms before a failed download is tried again by itself

/** An error: `key` names the interface text for it, `message` is the engine's message. */
export class ApiError extends Error {
  constructor(key, message = "", { status = 0, seconds = null } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", key, status, seconds });
  }
}

export class Api {
  #worker = null;
  #model = null;
  #failed = -Infinity; // when the model could not be opened
  #takers = new Map(); // call -> what takes its messages
  #calls = 0;

  /** The model; opened once, and again after a failure. */
  async model() {
    this.#model ??= this.#open();
    return this.#model;
  }

  /** The memory of the model, once it is open. */
  async health() {
    if (!this.#model && performance.now() < this.#failed + RETRY) throw new ApiError("errorDownload");
    await this.model();
    return this.#first({ kind: "health" });
  }

  /** The chunks of an answer; aborting `signal` ends it. */
  async *complete(body, signal) {
    await this.model();
    const { model, messages, stream, stream_options, progress, ...params } = body;
    const { call, next, close } = this.#start({ kind: "complete", body: { messages, ...params } });
    const aborted = new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
    aborted.catch(() => {});
    try {
      signal.throwIfAborted();
      for (;;) {
        const { chunk, done, error } = await Promise.race([next(), aborted]);
        if (error) throw new ApiError(error.key, error.key === "errorUnexpected" ? error.message : "");
        if (done) return;
        yield chunk;
      }
    } finally {
      if (signal.aborted) this.#worker.postMessage({ call, kind: "stop" });
      close();
    }
  }

  async #open() {
    await prepareSite(() => this.#worker?.terminate());
    this.#worker ??= this.#makeWorker();
    try {
      const model = await this.#first({ kind: "open" });
      if (!model.issun.stored) showLine(make("p", { testid: "unstored" }, make("span", { text: "unstored" })));
      return model;
    } catch (error) {
      this.#model = null;
      this.#failed = performance.now();
      throw error;
    } finally {
      showDownload(null);
    }
  }

  #makeWorker() {
    const worker = new Worker(new URL("../engine/worker.mjs", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => {
      if (data.progress) showDownload(data.progress);
      else this.#takers.get(data.call)?.(data);
    };
    worker.onerror = ({ message }) => {
      const error = { key: "errorUnexpected", message };
      for (const take of this.#takers.values()) take({ error });
    };
    return worker;
  }

  /** The one value that answers `request`. */
  async #first(request) {
    const { next, close } = this.#start(request);
    const { value, error } = await next();
    close();
    if (error) throw new ApiError(error.key, error.message);
    return value;
  }

  /** Send `request`; `next` gives its messages one after another. */
  #start(request) {
    const call = this.#calls++;
    const held = [];
    let wake = () => {};
    this.#takers.set(call, (message) => {
      held.push(message);
      wake();
    });
    this.#worker.postMessage({ ...request, call });
    const next = async () => {
      while (!held.length) {
        await new Promise((resolve) => {
          wake = resolve;
        });
      }
      return held.shift();
    };
    return { call, next, close: () => this.#takers.delete(call) };
  }
}
