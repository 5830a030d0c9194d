/** Conversations to prompt ids, by the template of the manifest (`runtime/text/slot_template.py`). */

/** @import { Dialogue, Manifest, Prompt, Template, Turn } from "./types.d.ts" */
/** @import { Tokenizer } from "./tokenizer.mjs" */

/** An error that the user can do something about; `key` names the page's text for it. */
export class EngineError extends Error {
  /** @param {string} key @param {string} message */
  constructor(key, message) {
    super(message);
    this.name = "EngineError";
    this.key = key;
  }
}

export class Prompts {
  #template;
  #tokenizer;
  #limit;
  #parts;
  /** @type {Map<string, number>} the turns that a conversation's latest prompt left out */
  #dropped = new Map();

  /** @param {Manifest} manifest @param {Tokenizer} tokenizer */
  constructor({ prompt, architecture }, tokenizer) {
    this.#template = prompt;
    this.#tokenizer = tokenizer;
    this.#limit = architecture.n_positions;
    this.#parts = tokenizer.split(prompt.chat.prompt || prompt.with_input);
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
    const { reserve } = this.#template.chat;
    let prompt = this.#fitting(dialogue, Math.min(reserve, maxNewTokens), before);
    if (!prompt && maxNewTokens >= this.#limit) prompt = this.#fitting(dialogue, 1, before);
    if (!prompt) {
      const { length } = this.#render({ ...dialogue, turns: [] });
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
    const render = (count) => this.#render({ ...dialogue, turns: turns.slice(count) }, count);
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
      ? this.#render({ ...dialogue, turns: turns.slice(dropped), beginning: "" }, dropped)
      : ids;
    return { ids, dropped, continued: ids.length - commonPrefix(ids, plain) };
  }

  /** `dropped` turns are missing from `dialogue`, which the template may mark. @param {Dialogue} dialogue */
  #render({ system, turns, message, beginning }, dropped = 0) {
    const { chat } = this.#template;
    const role = system.trim() ? chat.system.map((line) => fill(line, { system })) : [];
    if (dropped && chat.dropped) role.push(chat.dropped);
    const lines = role.map((line) => fill(chat.role_line, { line: this.#onOneLine(line) })).join("");
    const instruction = lines + this.#history(turns).join(chat.history_separator) || chat.empty_instruction;
    /** @type {Record<string, string>} */
    const values = {
      instruction: this.#onOneLine(instruction),
      input: this.#onOneLine(fill(chat.user, { message })),
      beginning: this.#onOneLine(beginning),
    };
    const parts = [...this.#parts];
    if (beginning) {
      // Encoded together with the text before it, as in the training data.
      const last = parts.pop() ?? "";
      parts.push(...(typeof last === "number" ? [last, "{beginning}"] : [`${last}{beginning}`]));
    }
    return this.#tokenizer.encodeParts(parts.map((part) => (typeof part === "number" ? part : fill(part, values))));
  }

  /** @param {Turn[]} turns */
  #history(turns) {
    const { user, assistant } = this.#template.chat;
    return turns.flatMap(({ message, reply }) => [
      // There is no message if the assistant began the conversation.
      ...(message ? [fill(user, { message: this.#onOneLine(message) })] : []),
      fill(assistant, { message: this.#onOneLine(reply) }),
    ]);
  }

  /** @param {string} text */
  #onOneLine(text) {
    const { newline } = this.#template;
    const lines = text.replace(/\r\n?/g, "\n");
    return newline ? lines.replaceAll("\n", newline) : lines;
  }
}

/** `pattern` with the values of its placeholders; braces in the values remain text. @param {string} pattern @param {Record<string, string>} values */
const fill = (pattern, values) => pattern.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

/** The length of the common prefix. @param {number[]} one @param {number[]} other */
export function commonPrefix(one, other) {
  const limit = Math.min(one.length, other.length);
  let length = 0;
  while (length < limit && one[length] === other[length]) length++;
  return length;
}
