/** Answers questions in Node.js with the bundle of a site that `issun web` wrote. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder = "site", ...questions] = process.argv.slice(2);
if (!questions.length) questions.push("日本で一番高い山は?", "17足す8は?");

// From the folder in which this is run: npm install onnxruntime-node@1.30
const ort = createRequire(pathToFileURL(resolve("package.json")))("onnxruntime-node");
const site = pathToFileURL(`${resolve(folder)}/`);
const read = (path) => readFileSync(new URL(path, site));
const load = (name) => import(new URL(`engine/${name}.mjs`, site).href);
const { Model } = await load("model");
const { OPTIONS } = await load("decoder");
const { GrowingCache } = await load("growing_cache");

const { manifest: path, tokenizer, graph, jinja } = JSON.parse(read("site.json"));
const manifest = JSON.parse(read(path));
// Sums of bytes would overflow on older x86 CPUs.
const extra = { ...OPTIONS.extra, session: { x64quantprecision: "1" } };
const session = await ort.InferenceSession.create(resolve(folder, graph), { ...OPTIONS, extra });
const cache = new GrowingCache(ort, session, manifest);
const model = new Model(manifest, read(tokenizer), cache, jinja && (await import(new URL(jinja, site).href)));

const messages = [];
for (const question of questions) {
  messages.push({ role: "user", content: question });
  const prompt = model.prompt(messages, 100); // leaves room for 100 tokens
  let answer = "";
  for await (const { text } of model.answer(prompt, { temperature: 0, max_new_tokens: 100 })) {
    process.stdout.write(text);
    answer += text;
  }
  process.stdout.write("\n");
  messages.push({ role: "assistant", content: answer });
}
