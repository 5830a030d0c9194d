/** Conversations as files: JSON, which can be read again, and Markdown for people. */

import { parseConversation, titleOf } from "./conversation.js";
import { roleText } from "./roles.js";
import { date, t } from "./text.js";

const FORMAT = "issun-conversations";
const VERSION = 1;

/** The conversations as JSON. */
export function toJson(conversations) {
  const file = { format: FORMAT, version: VERSION, exported: new Date().toISOString(), conversations };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** The conversations in a file that `toJson` wrote; throws a TypeError for any other. */
export function fromJson(text) {
  const { format, version, conversations } = parse(text);
  if (format !== FORMAT || version !== VERSION || !Array.isArray(conversations)) throw new TypeError("another format");
  return conversations.map(({ id, ...conversation }) => {
    if (typeof id !== "string" || !/^[0-9a-z]{1,64}$/.test(id)) throw new TypeError("no id");
    return parseConversation(id, conversation);
  });
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    throw new TypeError("not JSON");
  }
}

/** The conversations as one Markdown text in the page's language. */
export function toMarkdown(conversations) {
  return conversations.map(markdownOf).join("\n---\n\n");
}

function markdownOf(conversation) {
  const { updated, role, messages } = conversation;
  const lines = [`# ${titleOf(conversation) ?? t("untitled")}`, date(updated)];
  const system = roleText(role).trim();
  if (system) lines.push(`**${t("role")}**: ${system}`);
  for (const message of messages) lines.push(`## ${t(message.role)}`, message.content);
  return `${lines.join("\n\n")}\n`;
}

/** Let the browser save `text` as a file `name`. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may read it later
}
