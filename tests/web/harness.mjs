/** Runs parts of the engine in node: a JSON task on stdin, its results as JSON on stdout. */

import { readFileSync } from "node:fs";
import { parseDialogue } from "../../web/engine/dialogue.mjs";
import { formatOf } from "../../web/engine/model.mjs";
import { Prompts } from "../../web/engine/prompt.mjs";
import { DEFAULTS, generator, Sampler } from "../../web/engine/sampler.mjs";
import { TextStream } from "../../web/engine/stream.mjs";
import { openTokenizer } from "../../web/engine/tokenizer.mjs";

const task = JSON.parse(readFileSync(0, "utf-8"));
const { manifest, folder } = task;
const jinja = task.jinja && (await import(task.jinja));
const bytes = (name) => new Uint8Array(readFileSync(`${folder}/${name}`));
const tokenizer = () => openTokenizer(bytes(manifest.tokens.file), manifest.tokens);
// JSON has no infinity.
const row = (values) => Float32Array.from(values, (value) => value ?? -Infinity);

const TASKS = {
  tokens({ texts }) {
    const own = tokenizer();
    const ids = texts.map((text) => own.encodeParts(own.split(text)));
    return { ids, plain: texts.map((text) => own.encode(text)), decoded: ids.map((one) => own.decode(one)) };
  },
  prompts({ cases }) {
    const format = formatOf(manifest.prompt, tokenizer(), jinja);
    const prompts = new Prompts(format, manifest.architecture.n_positions);
    return cases.map(({ messages, most }) => {
      try {
        return prompts.fit(parseDialogue(messages), most);
      } catch (error) {
        return { error: error.key ?? String(error) };
      }
    });
  },
  samplers({ cases }) {
    return cases.map(({ logits, params, prompt, answer }) => {
      const sampler = new Sampler({ ...DEFAULTS, ...params }, manifest);
      const processed = sampler.process(row(logits), prompt, answer);
      const best = sampler.sample(row(logits), prompt, answer);
      const { ids, logits: left } = params.temperature !== 0 ? sampler.warp(processed) : { ids: [best], logits: [0] };
      return { processed: Array.from(processed, (x) => (x === -Infinity ? null : x)), ids: [...ids], left: [...left], best };
    });
  },
  draws({ logits, params, count }) {
    const sampler = new Sampler({ ...DEFAULTS, ...params }, manifest);
    return Array.from({ length: count }, () => sampler.sample(row(logits), [], []));
  },
  uniform({ seed, count }) {
    const random = generator(seed);
    return Array.from({ length: count }, random);
  },
  streams({ cases }) {
    const own = tokenizer();
    return cases.map(({ ids, before, stop, whole }) => {
      const stream = new TextStream(own, manifest.prompt.newline, stop);
      stream.continueAfter(before);
      const pieces = [];
      for (const id of ids) {
        pieces.push(stream.push(id));
        if (stream.stopped) break;
      }
      if (!stream.stopped) pieces.push(whole ? stream.finish() : stream.pause());
      return pieces;
    });
  },
};

process.stdout.write(JSON.stringify(TASKS[task.name](task)));
