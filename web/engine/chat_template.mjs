/** Chat templates in Jinja: messages to ids (`runtime/text/chat_template.py`). */

import { EngineError } from "./errors.mjs";
import { onOneLine } from "./slot_template.mjs";

/** @import { Dialogue, Jinja, JinjaTemplate, Message, PromptFormat, Tokenizer } from "./types.d.ts" */

const PARAGRAPH = "\n\n"; // between a role and a message of the same speaker
const PRIVATE = [
  [0xe000, 0xf900],
  [0xf0000, 0xffffe],
  [0x100000, 0x10fffe],
]; // Unicode's private use areas: no text needs all of them

// What strip() of Python removes and trim() of JavaScript keeps, and the other way round.
const PYTHON_SPACES = "\x1c\x1d\x1e\x1f\x85";
const JAVASCRIPT_SPACE = "\ufeff";
const BOTH_SPACES = "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u205f\u1680";

/**
 * Renders a conversation as messages. What a user types never becomes a control token: a mark is
 * put in front of each token that a text spells, and only those without one are the template's own.
 * @implements {PromptFormat}
 */
export class JinjaFormat {
  #template;
  #tokenizer;
  #parsed;

  /**
   * @param {JinjaTemplate} template
   * @param {Tokenizer} tokenizer
   * @param {Jinja["Template"]} Template
   */
  constructor(template, tokenizer, Template) {
    this.#template = template;
    this.#tokenizer = tokenizer;
    this.#parsed = new Template(template.source);
    this.reserve = template.reserve;
  }

  /** The ids of a conversation's next prompt, with all turns. @param {Dialogue} dialogue */
  ids({ system, turns, message, beginning }) {
    const spoken = turns.flatMap(({ message: asked, reply }) => [
      ...(asked ? [user(asked)] : []), // there is none if the assistant began the conversation
      { role: "assistant", content: reply },
    ]);
    const messages = this.#withSystem(system, [...spoken, user(message)]);
    const used = new Set([this.#template.source, ...messages.map(({ content }) => content), beginning].join(""));
    const [mark, kept] = unusedCharacters(used);
    const spaces = standIns(used, kept);
    const marked = messages.map(({ role, content }) => ({ role, content: replaced(this.#mark(content, mark), spaces) }));
    const rendered = replaced(this.#render(marked), new Map([...spaces].map(([space, other]) => [other, space])));
    const text = rendered + onOneLine(this.#template, this.#mark(beginning, mark));
    return this.#tokenizer.encodeParts(this.#parts(text, mark));
  }

  /** @param {Message[]} messages */
  #render(messages) {
    const { variables } = this.#template;
    try {
      return this.#parsed.render({ tools: null, documents: null, ...variables, messages, add_generation_prompt: true });
    } catch (error) {
      throw new EngineError("errorTemplate", error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {string} system @param {Message[]} spoken @returns {Message[]} */
  #withSystem(system, spoken) {
    if (!system.trim()) return spoken;
    if (this.#template.takes_system) return [{ role: "system", content: system }, ...spoken];
    const [first, ...others] = spoken;
    if (first.role === "assistant") return [user(system), ...spoken];
    return [user(system + PARAGRAPH + first.content), ...others];
  }

  /**
   * Put the mark in front of every control token in `text` that is not white space: a template that
   * strips texts must still find that at their ends.
   * @param {string} text
   * @param {string} mark
   */
  #mark(text, mark) {
    const parts = this.#tokenizer.split(text);
    const names = parts.map((part) => (typeof part === "number" ? this.#tokenizer.nameOf(part) : part));
    return names.map((name, place) => (typeof parts[place] === "number" && name.trim() ? mark + name : name)).join("");
  }

  /** `text`, cut at the template's own control tokens, without the marks. @param {string} text @param {string} mark */
  #parts(text, mark) {
    /** @type {(string | number)[]} */
    const found = [];
    /** @type {string | number} */
    let before = "";
    for (const part of this.#tokenizer.split(text)) {
      const marked = typeof before === "string" && before.endsWith(mark);
      found.push(typeof part === "number" && marked ? this.#tokenizer.nameOf(part) : part);
      before = part;
    }
    return found.map((part) => (typeof part === "string" ? part.replaceAll(mark, "") : part)).filter((part) => part !== "");
  }
}

/** @param {string} content @returns {Message} */
const user = (content) => ({ role: "user", content });

/** Private-use characters that are not used, of which every prompt needs two. @param {Set<string>} used */
function unusedCharacters(used) {
  const found = [];
  for (const [begin, end] of PRIVATE) {
    for (let code = begin; code < end; code++) {
      const character = String.fromCodePoint(code);
      if (!used.has(character) && found.push(character) === 2) return found;
    }
  }
  throw new RangeError("the messages have every private-use character of Unicode");
}

/**
 * Characters in place of those that JavaScript does not strip as Python does: other spaces, and
 * `kept`, which is none.
 * @param {Set<string>} used
 * @param {string} kept
 */
function standIns(used, kept) {
  const free = [...BOTH_SPACES].filter((space) => !used.has(space));
  const found = new Map([...PYTHON_SPACES].map((space, place) => [space, free[place] ?? space]));
  return found.set(JAVASCRIPT_SPACE, kept);
}

/** `text` with other characters. @param {string} text @param {Map<string, string>} others */
const replaced = (text, others) => Array.from(text, (character) => others.get(character) ?? character).join("");
