// What every client's script is made of: functions that each try one feature, and a report.

import { readFileSync } from "node:fs";

export const URL = process.env.ISSUN_URL; // of the server, without /v1
export const BASE_URL = `${URL}/v1`;
export const MODEL = process.env.ISSUN_MODEL;
export const KEY = "none"; // clients insist on one

export const QUESTION = "日本で一番高い山は?";
export const ANSWER = "富士山";
export const FIRST = "最初の質問は何ですか?";
export const ROLE = "あなたは「ずんだもん」なのだ。語尾に「なのだ」を付けてしゃべるのだ。";
export const CAPITAL = "フランスの首都は?";
export const CITIES = ["ローマ", "パリ", "ベルリン", "ロンドン"];
export const EMBEDDINGS = "no embeddings"; // what the server says of them
export const AUTO = "the model does not decide whether to call: it answers in text";

const features = [];

// `run` throws where the feature of `column` does not work; `limit` says why it cannot.
export function feature(column, name, run, limit = null) {
  features.push({ column, name, run, limit });
}

export function expect(claim, found) {
  if (!claim) throw new Error(`found ${typeof found === "string" ? found : JSON.stringify(found)}`);
}

export function contains(text, part = ANSWER) {
  expect(text.includes(part), text);
  return text;
}

// The error of `call`, which must hold all `words`.
export async function raises(call, ...words) {
  let found;
  try {
    found = await call();
  } catch (error) {
    const text = reason(error);
    for (const word of words) expect(text.includes(word), text);
    return text;
  }
  throw new Error(`no error, but ${JSON.stringify(found)}`);
}

function reason(error) {
  return `${error.name}: ${error.message}`;
}

// Tries every feature and prints a line of JSON for each; `name` is the package whose version counts.
export async function report(name) {
  const file = new globalThis.URL(`node_modules/${name}/package.json`, import.meta.url);
  console.log(JSON.stringify({ version: JSON.parse(readFileSync(file)).version }));
  const chosen = process.argv[2] ?? "";
  for (const { column, name, run, limit } of features) {
    if (!`${column} ${name}`.includes(chosen)) continue;
    const start = performance.now();
    let ok = true;
    let found;
    try {
      found = await run();
    } catch (error) {
      ok = false;
      found = reason(error);
      if (chosen) console.error(error);
    }
    const seconds = Math.round(performance.now() - start) / 1000;
    found = (typeof found === "string" ? found : (JSON.stringify(found) ?? "")).slice(0, 2000);
    console.log(JSON.stringify({ column, name, ok, limit, found, seconds }));
  }
}
