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

  /** The ids of a conversation's next prompt, with all turns. @param {Dialogue} dialogue */
  ids({ system, turns, message, beginning }) {
    const { chat } = this.#template;
    const role = system.trim() ? chat.system.map((line) => fill(line, { system })) : [];
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
