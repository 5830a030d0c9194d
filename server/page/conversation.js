/** Conversations as plain, storable data. */

import { ROLES, roleText } from "./roles.js";

const TITLE_LENGTH = 40;

/** An empty conversation without a role. */
export function newConversation() {
  const now = Date.now();
  return {
    // crypto.randomUUID is unavailable over plain http from another machine.
    id: now.toString(36) + Math.random().toString(36).slice(2),
    title: null,
    updated: now,
    role: { preset: "none", text: "" },
    messages: [],
  };
}

/** Parse the conversation `id` from `json`; throws if it is invalid. */
export function parseConversation(id, json) {
  const { title, updated, role, messages } = JSON.parse(json);
  if (!Array.isArray(messages) || !messages.every(isMessage)) throw new TypeError("no messages");
  return {
    id,
    title: typeof title === "string" ? title : null,
    updated: Number(updated) || 0,
    role: {
      preset: ROLES.includes(role?.preset) ? role.preset : "none",
      text: typeof role?.text === "string" ? role.text : "",
    },
    messages,
  };
}

function isMessage(value) {
  return ["user", "assistant"].includes(value?.role) && typeof value.content === "string";
}

/** The title, or the beginning of the first message; null if there is neither. */
export function titleOf({ title, messages }) {
  if (title) return title;
  const line = messages[0]?.content.trim().split("\n")[0] ?? "";
  return Array.from(line).slice(0, TITLE_LENGTH).join("") || null;
}

/** Whether the conversation has no message, title or role. */
export function isBlank({ title, role, messages }) {
  return !title && role.preset === "none" && messages.length === 0;
}

/** Whether a message of the user is followed by another one of the user. */
export function isUnanswered(messages, place) {
  const next = messages[place + 1];
  return messages[place].role === "user" && next !== undefined && !(next.role === "assistant" && next.content);
}

/** The messages to send: the role, the answered turns, and the last message. */
export function promptOf({ role, messages }) {
  const system = roleText(role).trim();
  const turns = messages
    .filter(({ content }, place) => content && !isUnanswered(messages, place))
    .map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...turns] : turns;
}
