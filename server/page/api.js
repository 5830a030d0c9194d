/** A client for the server's API: the model, its health, and answers as a stream of chunks. */

import { readEvents } from "./sse.js";
import { hasText } from "./text.js";

const KEY = "issun.key";

/** An error: `key` names the interface text for it, `message` is the server's message. */
export class ApiError extends Error {
  constructor(key, message = "", { status = 0, seconds = null } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", key, status, seconds });
  }
}

export class Api {
  #model = null;
  #asking = null;
  #askKey;
  #session;
  #key;

  /** `askKey(wrong)` asks the user for the API key; `session` stores it, and may be null. */
  constructor(session, askKey) {
    this.#session = session;
    this.#askKey = askKey;
    this.#key = session?.getItem(KEY) ?? null;
  }

  /** The served model; requested once. */
  async model(signal) {
    this.#model ??= (await (await this.#request("/v1/models", { signal })).json()).data[0];
    return this.#model;
  }

  /** Memory and load of the server. */
  async health() {
    const response = await fetch("/health", { cache: "no-store" });
    if (!response.ok) throw new ApiError("errorOther", "", { status: response.status });
    return response.json();
  }

  /** The chunks of an answer; aborting `signal` ends it. */
  async *complete(body, signal) {
    const headers = { "Content-Type": "application/json" };
    const response = await this.#request("/v1/chat/completions", {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      signal,
    });
    try {
      for await (const data of readEvents(response.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ApiError("errorMidway", chunk.error.message);
        yield chunk;
      }
    } catch (error) {
      throw signal.aborted || error instanceof ApiError ? error : new ApiError("errorCut");
    }
    throw new ApiError("errorCut");
  }

  async #request(path, init) {
    for (;;) {
      const key = this.#key;
      const response = await send(path, init, key);
      if (response.ok) return response;
      if (response.status === 404) this.#model = null; // the server may have been restarted with another model
      if (response.status !== 401 || !(await this.#newKey(key))) throw await errorOf(response);
    }
  }

  /** Ask for a key once for all waiting requests; false when the user gives none. */
  async #newKey(refused) {
    if (this.#key !== refused) return true;
    this.#asking ??= this.#askKey(refused !== null).finally(() => {
      this.#asking = null;
    });
    const key = await this.#asking;
    if (!key) return false;
    this.#key = key;
    try {
      this.#session?.setItem(KEY, key);
    } catch {
      // If the session storage is full, the user has to enter the key again after a reload.
    }
    return true;
  }
}

async function send(path, init, key) {
  const headers = { ...init.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  try {
    return await fetch(path, { ...init, headers, cache: "no-store" });
  } catch (error) {
    throw init.signal?.aborted ? error : new ApiError("errorUnreachable");
  }
}

async function errorOf(response) {
  const { status } = response;
  const answer = await response.json().catch(() => null);
  const wait = response.headers.get("Retry-After");
  const seconds = wait !== null && Number.isFinite(Number(wait)) ? Number(wait) : null;
  const known = hasText(`error${status}`) ? `error${status}` : "errorOther";
  const key = status === 429 && seconds !== null ? "error429In" : known;
  return new ApiError(key, answer?.error?.message ?? "", { status, seconds });
}
