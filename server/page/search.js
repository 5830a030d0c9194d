/** Searching the conversations. */

const BEFORE = 8; // characters before a match in an excerpt
const LENGTH = 40; // of an excerpt

/** `text` without differences of width, case, and between hiragana and katakana. */
function fold(text) {
  const plain = text.normalize("NFKC").toLowerCase();
  return plain.replace(/[\u30a1-\u30f6]/g, (letter) => String.fromCharCode(letter.charCodeAt(0) - 0x60));
}

/**
 * The conversations that have all words of `query` in `titleOf` or messages, each with the first
 * `message` that has one of them, and an `excerpt` of it. All conversations for an empty query.
 */
export function search(conversations, query, titleOf) {
  const words = fold(query).split(/\s+/).filter(Boolean);
  if (!words.length) return conversations.map((conversation) => ({ conversation, message: null, excerpt: "" }));
  return conversations
    .filter((conversation) => hasAll(conversation, words, titleOf))
    .map((conversation) => {
      const message = conversation.messages.find(({ content }) => placeOf(content, words) >= 0) ?? null;
      return { conversation, message, excerpt: message ? excerptOf(message.content, words) : "" };
    });
}

function hasAll(conversation, words, titleOf) {
  const text = fold([titleOf(conversation), ...conversation.messages.map(({ content }) => content)].join("\n"));
  return words.every((word) => text.includes(word));
}

/** Where the first of `words` that `content` has begins in the folded text, or -1. */
function placeOf(content, words) {
  const text = fold(content);
  return words.map((word) => text.indexOf(word)).find((place) => place >= 0) ?? -1;
}

// Folding may change the length, so that the place is only about right.
function excerptOf(content, words) {
  const line = content.replace(/\s+/g, " ");
  const start = Math.max(0, placeOf(line, words) - BEFORE);
  return `${start > 0 ? "…" : ""}${Array.from(line.slice(start)).slice(0, LENGTH).join("")}`;
}
