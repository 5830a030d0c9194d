/** The page's worker: opens the bundle, and answers one conversation after another. */

import { memoryBytes, openModel } from "./open.mjs";
import { EngineError } from "./errors.mjs";

/** @import { Request } from "./types.d.ts" */

/** @type {ReturnType<typeof openModel> | null} */
let opened = null;
/** @type {Promise<unknown>} the latest answer; the next one waits for its end */
let latest = Promise.resolve();
/** @type {Set<number>} calls that the page has stopped */
const stopped = new Set();

/** @param {MessageEvent<Request>} event */
onmessage = async ({ data: request }) => {
  const { call } = request;
  try {
    if (request.kind === "stop") stopped.add(call);
    if (request.kind === "health") postMessage({ call, value: { memory_bytes: memoryBytes() } });
    if (request.kind === "open") postMessage({ call, value: await open(request.threads) });
    if (request.kind === "complete") {
      const before = latest;
      latest = before.then(() => complete(call, request.body)).catch((error) => fail(call, error));
    }
  } catch (error) {
    if (request.kind === "open") opened = null; // so that it can be tried again
    fail(call, error);
  }
};

/** What `/v1/models` of the server says about the model. @param {number} [threads] */
async function open(threads) {
  const address = new URL("../", import.meta.url);
  /** @param {number} done @param {number} total */
  const report = (done, total) => postMessage({ progress: { done, total } });
  opened ??= openModel(address, { threads, report });
  const { site, model, stored, threads: used } = await opened;
  const { temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens } = model.defaults;
  const { name: id, precision, version, demonstration } = site;
  const context = model.manifest.architecture.n_positions;
  const sampling = { temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens };
  return { id, issun: { version, precision, demonstration, context, sampling, stored, threads: used } };
}

/**
 * Answer as the server does, in chunks of a chat completion.
 * @param {number} call
 * @param {Extract<Request, { kind: "complete" }>["body"]} body
 */
async function complete(call, { messages, max_tokens, ...changes }) {
  if (!opened) throw new Error("the model is not open");
  const { model } = await opened;
  const most = max_tokens ?? model.manifest.architecture.n_positions;
  const prompt = model.prompt(messages, most);
  const total = prompt.ids.length;
  /** @param {object} chunk */
  const send = (chunk) => postMessage({ call, chunk: { choices: [], ...chunk } });
  send({ issun: { queued: false, dropped_turns: prompt.dropped } });
  let count = 0;
  let first = 0; // when the first token came
  const began = performance.now();
  /** @param {number} read */
  const next = async (read) => {
    if (!count) send({ issun: { read_tokens: read, prompt_tokens: total, queued: false } });
    await turn();
    return !stopped.has(call);
  };
  const params = { ...changes, max_new_tokens: most };
  for await (const { text, reason } of model.answer(prompt, params, next)) {
    count += 1;
    first ||= performance.now();
    const seconds = (performance.now() - first) / 1000;
    const usage = { prompt_tokens: total, completion_tokens: count, total_tokens: total + count };
    if (text) send({ choices: [{ index: 0, delta: { content: text } }], usage });
    if (!reason) continue;
    const tokens_per_second = count > 1 ? (count - 1) / seconds : 0;
    const seconds_to_first_token = (first - began) / 1000;
    send({ choices: [{ index: 0, delta: {}, finish_reason: reason }] });
    send({ usage, issun: { tokens_per_second, seconds_to_first_token } });
  }
  stopped.delete(call);
  postMessage({ call, done: true });
}

/** @param {number} call @param {unknown} error */
function fail(call, error) {
  stopped.delete(call);
  const key = error instanceof EngineError ? error.key : "errorUnexpected";
  postMessage({ call, error: { key, message: error instanceof Error ? error.message : String(error) } });
}

/** Let messages in: a step of the graph blocks the worker. */
function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => resolve(port1.close());
    port2.postMessage(null);
  });
}
