/**
 * The inline part of Markdown: emphasis, code and links, as DOM nodes.
 *
 * All text becomes text nodes, and no element gets an attribute from the text, so that nothing in an
 * answer can run or load anything. Emphasis ends next to Japanese punctuation too, where
 * CommonMark would show the asterisks, and never begins in sums (`3*5*2`).
 */

const LONGEST = 600; // characters of one span, so that unclosed marks cost little
const some = `[^]{1,${LONGEST}}?`;
// No asterisk before, and not between two characters of `kind`, as in 3*5.
const apart = (kind) => String.raw`(?<!\*)(?!(?<=[${kind}])\*+[${kind}])`;
const rule = (pattern, make) => ({ pattern: new RegExp(pattern, "y"), make });

const RULES = [
  rule(String.raw`\\([!-/:-@[-\x60{-~])`, ([, mark]) => [mark]),
  rule(`(?<!\`)(\`+)(?!\`)(${some})(?<!\`)\\1(?!\`)`, ([, , code]) => [element("code", [trimCode(code)])]),
  rule(
    String.raw`!?\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\]){1,${LONGEST}})\]\(\s*(<[^<>\n]*>|(?:[^\s()]|\([^\s()]*\)){1,2000})` +
      String.raw`(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)`,
    ([, label, address], depth) => link(label, address.replace(/^<|>$/g, ""), depth),
  ),
  rule(String.raw`${apart("0-9")}\*\*\*(?![\s*])(${some})(?<![\s*])\*\*\*(?!\*)`, ([, text], depth) => [
    element("strong", [element("em", inline(text, depth))]),
  ]),
  rule(String.raw`${apart("0-9")}\*\*(?!\s)(${some})(?<!\s)\*\*(?!\*(?!\*))`, emphasis("strong")),
  rule(String.raw`(?<![0-9A-Za-z_])__(?!\s)(${some})(?<!\s)__(?![0-9A-Za-z_])`, emphasis("strong")),
  rule(String.raw`${apart("0-9A-Za-z")}\*(?![\s*])(${some})(?<![\s*])${apart("0-9A-Za-z")}\*(?!\*)`, emphasis("em")),
  rule(String.raw`(?<![0-9A-Za-z_])_(?![\s_])(${some})(?<![\s_])_(?![0-9A-Za-z_])`, emphasis("em")),
];
const MARKS = /[\\`!\[*_]/g;
const DEEPEST = 8;

/** The nodes and strings of `text`, which may hold newlines. */
export function inline(text, depth = 0) {
  const nodes = [];
  let plain = ""; // what has been read since the last node
  const put = (node) => {
    if (typeof node === "string") plain += node;
    else {
      if (plain) nodes.push(plain);
      plain = "";
      nodes.push(node);
    }
  };
  let place = 0;
  while (place < text.length) {
    MARKS.lastIndex = place;
    const mark = depth < DEEPEST ? MARKS.exec(text) : null;
    put(text.slice(place, mark?.index));
    if (!mark) break;
    const [found, made] = match(text, mark.index, depth);
    for (const node of made) put(node);
    place = mark.index + found.length;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

/** What begins at `place`: its source and its nodes; the mark itself if no rule fits. */
function match(text, place, depth) {
  for (const { pattern, make } of RULES) {
    pattern.lastIndex = place;
    const found = pattern.exec(text);
    if (found) return [found[0], make(found, depth + 1)];
  }
  // A run of marks is passed over whole, or its rest would be tried as a shorter one.
  const run = /^(\*+|_+|`+|.)/s.exec(text.slice(place, place + LONGEST))[0];
  return [run, [run]];
}

function emphasis(tag) {
  return ([, text], depth) => [element(tag, inline(text, depth))];
}

/** A link as its text and its address, since the address is the model's and may lead anywhere. */
function link(label, address, depth) {
  if (label === address) return [element("span", [address], "address")];
  return [...inline(label, depth), " ", element("span", [`(${address})`], "address")];
}

// `` ` `` is written with spaces beside the mark.
const trimCode = (code) => (/^ .*[^ ].* $/s.test(code) ? code.slice(1, -1) : code);

/** Make an element with `children`, which are nodes and texts. */
export function element(tag, children, className = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}
