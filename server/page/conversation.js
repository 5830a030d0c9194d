/** Conversations as plain, storable data. */

import { ROLES, roleText } from "./roles.js";

const TITLE_LENGTH = 40;
const STATES = ["stopped", "partial", "length", "error", "empty"];

/** An id that no other conversation has. */
export function newId() {
  // crypto.randomUUID is unavailable over plain http from another machine.
  return Date.now().toString(36) + Math.random().toString(36).slice(2);
}

/** An empty conversation without a role. */
export function newConversation() {
  return {
    id: newId(),
    title: null,
    updated: Date.now(),
    role: { preset: "none", text: "" },
    messages: [],
  };
}

/** The conversation `id` made of what was stored; throws a TypeError if that is invalid. */
export function parseConversation(id, { title, updated, role, messages }) {
  if (!Array.isArray(messages) || !messages.every(isMessage)) throw new TypeError("no messages");
  return {
    id,
    title: typeof title === "string" ? title : null,
    updated: Number(updated) || 0,
    role: {
      preset: ROLES.includes(role?.preset) ? role.preset : "none",
      text: typeof role?.text === "string" ? role.text : "",
    },
    messages: messages.map(cleanMessage),
  };
}

function isMessage(value) {
  return ["user", "assistant"].includes(value?.role) && typeof value.content === "string";
}

/** A message with its known fields alone. */
function cleanMessage({ role, content, state, dropped, used }) {
  return {
    role,
    content,
    ...(STATES.includes(state) && { state }),
    ...(Number.isInteger(dropped) && { dropped }),
    ...(Number.isInteger(used) && { used }),
  };
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
