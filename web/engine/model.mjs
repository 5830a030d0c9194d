/** A bundle that answers conversations. */

import { Decoder } from "./decoder.mjs";
import { parseDialogue } from "./dialogue.mjs";
import { JinjaFormat } from "./chat_template.mjs";
import { Prompts } from "./prompt.mjs";
import { DEFAULTS, endsOf, Sampler } from "./sampler.mjs";
import { SlotFormat } from "./slot_template.mjs";
import { TextStream } from "./stream.mjs";
import { openTokenizer } from "./tokenizer.mjs";

/** @import { Cache, Jinja, JinjaTemplate, Manifest, Message, Params, Prompt, Segment, Template, Tokenizer } from "./types.d.ts" */

export class Model {
  /**
   * @param {Manifest} manifest
   * @param {Uint8Array} tokenizer content of the tokenizer's file
   * @param {Cache} cache
   * @param {Jinja} [jinja] for a chat template in Jinja
   */
  constructor(manifest, tokenizer, cache, jinja) {
    this.manifest = manifest;
    this.tokenizer = openTokenizer(tokenizer, manifest.tokens);
    this.prompts = new Prompts(formatOf(manifest.prompt, this.tokenizer, jinja), manifest.architecture.n_positions);
    this.decoder = new Decoder(cache);
    /** @type {Params} */
    this.defaults = { ...DEFAULTS, ...manifest.sampling };
  }

  /** The prompt of a conversation. @param {Message[]} messages @param {number} maxNewTokens */
  prompt(messages, maxNewTokens) {
    return this.prompts.fit(parseDialogue(messages), maxNewTokens);
  }

  /**
   * The answer to a prompt, token by token. `next(read)` is called before each step with the number
   * of prompt ids that are read; the answer ends without a reason where it returns false.
   * @param {Prompt} prompt
   * @param {Partial<Params>} [changes] of the defaults
   * @param {(read: number) => Promise<boolean>} [next]
   * @returns {AsyncGenerator<Segment>}
   */
  async *answer({ ids: prompt, continued }, changes = {}, next = async () => true) {
    const params = { ...this.defaults, ...changes };
    const sampler = new Sampler(params, this.manifest, this.tokenizer.addedIds);
    const text = new TextStream(this.tokenizer, this.manifest.prompt.newline, params.stop);
    const ends = endsOf(this.manifest.tokens);
    const limit = Math.min(params.max_new_tokens, this.manifest.architecture.n_positions - prompt.length);
    text.continueAfter(prompt.slice(prompt.length - continued));
    /** @type {number[]} */
    const answer = [];
    let logits = await this.decoder.prefill(prompt, next);
    while (logits) {
      const id = sampler.sample(logits, prompt, answer);
      if (ends.has(id)) {
        yield { id, text: text.finish(), reason: "stop" };
        return;
      }
      answer.push(id);
      const added = text.push(id);
      if (text.stopped || answer.length === limit) {
        yield text.stopped
          ? { id, text: added, reason: "stop" }
          : { id, text: added + text.pause(), reason: "length" };
        return;
      }
      yield { id, text: added, reason: null };
      logits = (await next(prompt.length)) ? await this.decoder.step([id]) : null;
    }
  }
}

/**
 * @param {Template | JinjaTemplate} template
 * @param {Tokenizer} tokenizer
 * @param {Jinja} [jinja]
 */
export function formatOf(template, tokenizer, jinja) {
  if (template.kind !== "jinja") return new SlotFormat(template, tokenizer);
  if (!jinja) throw new TypeError("a chat template in Jinja needs @huggingface/jinja");
  return new JinjaFormat(template, tokenizer, jinja.Template);
}
