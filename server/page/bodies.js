/** The text of a message: a question as it was typed, an answer as Markdown. */

import { copyWith } from "./copying.js";
import { make, makeButton } from "./dom.js";
import { blocksOf, scrolling } from "./markdown.js";

/** Make a function that shows a question in `root`. */
export function makeQuestionText(root) {
  const text = document.createTextNode("");
  root.append(text);
  return (content) => setText(text, content);
}

/** Make a function that shows an answer in `root`; what stays the same keeps focus and selection. */
export function makeAnswerText(root) {
  let shown = "";
  let sources = [];
  return (content) => {
    if (content === shown) return;
    shown = content;
    const blocks = blocksOf(content, makeCode);
    blocks.forEach(({ source, make: makeBlock }, place) => {
      const there = root.children[place];
      if (!there) root.append(makeBlock());
      else if (source !== sources[place]) patch(there, makeBlock());
    });
    while (root.children.length > blocks.length) root.lastChild.remove();
    sources = blocks.map(({ source }) => source);
  };
}

function makeCode(text, language) {
  const code = make("code", { textContent: text });
  const copying = makeButton("copy", () => copyWith(copying, code.textContent), { testid: "copy-code" });
  const head = make("div", { className: "code-head" }, make("span", { textContent: language }), copying);
  return make("div", { className: "code", testid: "code" }, head, scrolling(make("pre", {}, code)));
}

/** Make `old` equal to `wanted`, a newer version of it, and change as little as possible. */
function patch(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE && wanted.nodeType === Node.TEXT_NODE) {
    setText(old, wanted.data);
  } else if (!old.cloneNode(false).isEqualNode(wanted.cloneNode(false))) {
    old.replaceWith(wanted);
  } else if (old.tagName !== "BUTTON") {
    const children = [...wanted.childNodes];
    children.forEach((child, place) => {
      const there = old.childNodes[place];
      if (there) patch(there, child);
      else old.append(child);
    });
    while (old.childNodes.length > children.length) old.lastChild.remove();
  }
}

// A stream only appends, and appending preserves the selection.
function setText(node, text) {
  if (node.data === text) return;
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}
