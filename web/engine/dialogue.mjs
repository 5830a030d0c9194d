/** Messages of the chat API to a dialogue (`server/messages.py`, less what the page never sends). */

/** @import { Dialogue, Message, Turn } from "./types.d.ts" */

/**
 * Consecutive texts of one speaker are joined with newlines, blank ones are dropped, and an
 * assistant's message at the end is the beginning of the answer.
 * @param {Message[]} messages of the roles system, user and assistant
 * @returns {Dialogue}
 */
export function parseDialogue(messages) {
  const texts = messages.filter(({ content }) => content.trim());
  const system = texts.filter(({ role }) => role === "system");
  /** @type {Message[]} */
  const spoken = [];
  for (const { role, content } of texts.filter((text) => text.role !== "system")) {
    const last = spoken.at(-1);
    if (last?.role === role) last.content += `\n${content}`;
    else spoken.push({ role, content });
  }
  const beginning = spoken.at(-1)?.role === "assistant" ? (spoken.pop()?.content ?? "") : "";
  const message = spoken.pop()?.content;
  if (message === undefined) throw new TypeError("there is nothing to answer");
  return { system: system.map(({ content }) => content).join("\n"), turns: turnsOf(spoken), message, beginning };
}

/** @param {Message[]} spoken alternating, the last one the assistant's @returns {Turn[]} */
function turnsOf(spoken) {
  const texts = spoken.map(({ content }) => content);
  if (spoken[0]?.role === "assistant") texts.unshift("");
  return Array.from({ length: texts.length / 2 }, (_, i) => ({ message: texts[2 * i], reply: texts[2 * i + 1] }));
}
