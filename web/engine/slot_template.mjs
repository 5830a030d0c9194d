/** Prompts by a template with placeholders (`runtime/text/slot_template.py`). */

/** @import { Dialogue, PromptFormat, Template, Tokenizer, Turn } from "./types.d.ts" */

/** @implements {PromptFormat} */
export class SlotFormat {
  #template;
  #tokenizer;
  #parts;

  /** @param {Template} template @param {Tokenizer} tokenizer */
  constructor(template, tokenizer) {
    this.#template = template;
    this.#tokenizer = tokenizer;
    this.#parts = tokenizer.split(template.chat.prompt || template.with_input);
    this.reserve = template.chat.reserve;
  }

  /**
   * The ids of a conversation's next prompt, with all turns of `dialogue`.
   * @param {Dialogue} dialogue
   * @param {number} dropped older turns that are missing from it, which the template may mark
   */
  ids({ system, turns, message, beginning }, dropped = 0) {
    const { chat } = this.#template;
    const role = system.trim() ? chat.system.map((line) => fill(line, { system })) : [];
    if (dropped && chat.dropped) role.push(chat.dropped);
    const lines = role.map((line) => fill(chat.role_line, { line: onOneLine(this.#template, line) })).join("");
    const instruction = lines + this.#history(turns).join(chat.history_separator) || chat.empty_instruction;
    /** @type {Record<string, string>} */
    const values = {
      instruction: onOneLine(this.#template, instruction),
      input: onOneLine(this.#template, fill(chat.user, { message })),
      beginning: onOneLine(this.#template, beginning),
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
      ...(message ? [fill(user, { message: onOneLine(this.#template, message) })] : []),
      fill(assistant, { message: onOneLine(this.#template, reply) }),
    ]);
  }
}

/** `pattern` with the values of its placeholders; braces in the values remain text. @param {string} pattern @param {Record<string, string>} values */
const fill = (pattern, values) => pattern.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

/** `text` with the template's spelling of newlines. @param {{ newline: string }} template @param {string} text */
export function onOneLine({ newline }, text) {
  const lines = text.replace(/\r\n?/g, "\n");
  return newline ? lines.replaceAll("\n", newline) : lines;
}
