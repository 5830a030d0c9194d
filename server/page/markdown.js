/**
 * Answers in Markdown, as DOM nodes: headings, lists, tables, quotes, rules and code, and in them what
 * inline.js reads. Single newlines stay, as in most chats. HTML stays text.
 */

import { element, inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t\u3000]+(.*))?$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|(\d{1,9})[.)])(?:[ \t]+|$)/;
const INDENTED = /^(?: {2}|\t)/;
const DELIMITERS = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const DEEPEST = 6; // quotes and lists in each other

/**
 * The top blocks of `text`: `source` and a function that makes the element. `code(text, language)`
 * makes the element of a code block.
 */
export function blocksOf(text, code) {
  return read(text.split("\n"), { code, depth: 0, level: 2 });
}

/** `reading` holds `code`, the depth, and the level of the heading before. */
function read(lines, reading) {
  const blocks = [];
  for (let place = 0; place < lines.length; ) {
    if (!lines[place].trim()) {
      place += 1;
      continue;
    }
    const { end, make } = READERS.map((reader) => reader(lines, place, reading)).find(Boolean);
    blocks.push({ source: lines.slice(place, end).join("\n"), make });
    place = end;
  }
  return blocks;
}

const READERS = [fence, heading, horizontal, quote, list, table, paragraph];

function fence(lines, start, { code }) {
  const found = FENCE.exec(lines[start]);
  if (!found) return null;
  const [, marks, language] = found;
  const closing = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`);
  let end = start + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const text = lines.slice(start + 1, end).join("\n");
  return { end: Math.min(end + 1, lines.length), make: () => code(text, language.trim().split(/\s/)[0]) };
}

// Levels go down one by one below the speaker's, whatever the answer has, for screen readers; the
// class has the answer's level.
function heading(lines, start, reading) {
  const found = HEADING.exec(lines[start]);
  if (!found) return null;
  const wanted = found[1].length;
  const text = (found[2] ?? "").trim().replace(/(?:^|[ \t])#+$/, "");
  const level = Math.min(wanted + 2, reading.level + 1, 6);
  reading.level = level;
  return { end: start + 1, make: () => element(`h${level}`, inline(text), `heading-${wanted}`) };
}

function horizontal(lines, start) {
  return RULE.test(lines[start]) ? { end: start + 1, make: () => document.createElement("hr") } : null;
}

function quote(lines, start, reading) {
  if (reading.depth >= DEEPEST || !QUOTE.test(lines[start])) return null;
  let end = start;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(start, end).map((line) => line.replace(QUOTE, ""));
  return { end, make: () => element("blockquote", inside(inner, reading)) };
}

function list(lines, start, reading) {
  const first = ITEM.exec(lines[start]);
  if (reading.depth >= DEEPEST || !first) return null;
  const items = [];
  let end = start;
  for (let found = first; found; ) {
    const item = [lines[end].slice(found[0].length)];
    end += 1;
    for (let next = skipBlank(lines, end); continues(lines, next, next > end); next = skipBlank(lines, end)) {
      for (; end <= next; end += 1) item.push(dedent(lines[end], found[0].length));
    }
    items.push(item);
    const next = skipBlank(lines, end);
    found = itemOf(lines[next], kindOf(first));
    if (found) end = next;
  }
  const make = () => {
    const made = element(
      first[3] ? "ol" : "ul",
      items.map((item) => element("li", itemContent(item, reading))),
    );
    if (first[3]) made.start = Number(first[3]);
    return made;
  };
  return { end, make };
}

const kindOf = ([, , mark]) => mark.at(-1);

/** The match of a line that is another item of a list of this kind, else null. */
function itemOf(line, kind) {
  const found = line === undefined || RULE.test(line) ? null : ITEM.exec(line);
  return found && kindOf(found) === kind ? found : null;
}

/** Whether line `place` belongs to the item before it: indented, or the rest of its paragraph. */
function continues(lines, place, isAfterBlank) {
  const line = lines[place];
  if (line === undefined) return false;
  return INDENTED.test(line) || !(isAfterBlank || ITEM.test(line) || begins(lines, place));
}

function skipBlank(lines, place) {
  let next = place;
  while (next < lines.length && !lines[next].trim()) next += 1;
  return next;
}

function dedent(line, width) {
  const indent = /^[ \t]*/.exec(line.replace(/^\t/, "    "))[0].length;
  return line.replace(/^\t/, "    ").slice(Math.min(indent, width));
}

/** The children of an item; those of a first paragraph stand in the item itself. */
function itemContent(lines, reading) {
  const made = inside(lines, reading);
  return made[0]?.tagName === "P" ? [...made[0].childNodes, ...made.slice(1)] : made;
}

function table(lines, start) {
  const [head, delimiters] = [lines[start], lines[start + 1]];
  if (!head.includes("|") || !delimiters?.includes("-") || !DELIMITERS.test(delimiters)) return null;
  const names = cells(head);
  const sides = cells(delimiters).map(sideOf);
  if (names.length !== sides.length) return null;
  let end = start + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const row = (tag, line) =>
    element(
      "tr",
      sides.map((side, column) => element(tag, inline(line[column] ?? ""), side)),
    );
  const make = () => {
    const rows = lines.slice(start + 2, end).map((line) => row("td", cells(line)));
    const made = element("table", [element("thead", [row("th", names)]), element("tbody", rows)]);
    return scrolling(element("div", [made], "table"));
  };
  return { end, make };
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  // Models begin new lines in cells as HTML does, since Markdown has no other way.
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/ *<br ?\/?> */gi, "\n"));
}

function sideOf(delimiter) {
  if (!delimiter.endsWith(":")) return "";
  return delimiter.startsWith(":") ? "center" : "right";
}

function paragraph(lines, start) {
  let end = start + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines, end)) end += 1;
  const text = lines.slice(start, end).map((line) => line.trimEnd());
  return { end, make: () => element("p", inline(text.join("\n"))) };
}

/** Whether a block begins at line `place` in the middle of a paragraph; of numbered lists only 1. */
function begins(lines, place) {
  const line = lines[place];
  if ([FENCE, HEADING, RULE, QUOTE].some((pattern) => pattern.test(line))) return true;
  const item = ITEM.exec(line);
  if (item && item[0].length < line.length && (!item[3] || item[3] === "1")) return true;
  return table(lines, place) !== null;
}

function inside(lines, reading) {
  return read(lines, { ...reading, depth: reading.depth + 1 }).map(({ make }) => make());
}

/** Let the keyboard scroll `made`, which may be wider than the page. */
export function scrolling(made) {
  made.tabIndex = 0;
  return made;
}
