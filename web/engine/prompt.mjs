/** Conversations to prompt ids that fit into the context (`runtime/text/prompt.py`). */

import { EngineError } from "./errors.mjs";

/** @import { Dialogue, Prompt, PromptFormat } from "./types.d.ts" */

export class Prompts {
  #format;
  #limit;
  /** @type {Map<string, number>} the turns that a conversation's latest prompt left out */
  #dropped = new Map();

  /** @param {PromptFormat} format @param {number} limit positions of the context */
  constructor(format, limit) {
    this.#format = format;
    this.#limit = limit;
  }

  /**
   * The prompt of a conversation, without the oldest turns if not all fit. Where turns are dropped
   * a third of the others goes too, and stays out: so later prompts share the prefix of this one.
   * If the answer may be as long as the context, any room that is left suffices.
   * @param {Dialogue} dialogue
   * @param {number} maxNewTokens
   * @returns {Prompt}
   */
  fit(dialogue, maxNewTokens) {
    const key = JSON.stringify([dialogue.system, dialogue.turns[0] ?? null]);
    const before = this.#dropped.get(key) ?? 0;
    const { reserve } = this.#format;
    let prompt = this.#fitting(dialogue, Math.min(reserve, maxNewTokens), before);
    if (!prompt && maxNewTokens >= this.#limit) prompt = this.#fitting(dialogue, 1, before);
    if (!prompt) {
      const { length } = this.#format.ids({ ...dialogue, turns: [] });
      const message = `${length} + ${Math.min(reserve, maxNewTokens)} > ${this.#limit}`;
      throw new EngineError("errorContext", message);
    }
    this.#dropped.set(key, prompt.dropped);
    return prompt;
  }

  /** @param {Dialogue} dialogue @param {number} reserve @param {number} before @returns {Prompt | null} */
  #fitting(dialogue, reserve, before) {
    const { turns } = dialogue;
    /** @param {number} count */
    const render = (count) => this.#format.ids({ ...dialogue, turns: turns.slice(count) }, count);
    let [least, high] = [0, turns.length + 1]; // binary search: each try encodes the conversation
    while (least < high) {
      const middle = (least + high) >> 1;
      if (render(middle).length + reserve <= this.#limit) high = middle;
      else least = middle + 1;
    }
    if (least > turns.length) return null;
    const rest = turns.length - least;
    const kept = least <= before && before <= least + ((rest + 1) >> 1);
    const dropped = least === 0 ? 0 : kept ? before : least + Math.floor(rest / 3);
    const ids = render(dropped);
    const plain = dialogue.beginning
      ? this.#format.ids({ ...dialogue, turns: turns.slice(dropped), beginning: "" }, dropped)
      : ids;
    return { ids, dropped, continued: ids.length - commonPrefix(ids, plain) };
  }
}

/** The length of the common prefix. @param {number[]} one @param {number[]} other */
export function commonPrefix(one, other) {
  const limit = Math.min(one.length, other.length);
  let length = 0;
  while (length < limit && one[length] === other[length]) length++;
  return length;
}
