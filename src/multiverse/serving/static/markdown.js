// Markdown, LaTeX and code as elements.
//
// What a model writes is hostile until shown otherwise: no string of it is ever read as HTML. The parser's tokens become
// elements one by one, its texts become text nodes; HTML in it stays text, pictures become links (nothing is loaded), and links
// go to http, https and mail addresses only. Formulas and coloured code are made when they are needed; see `typeset.js`.

import { el } from "./dom.js";
import { entity } from "./entities.js";
import { markdown } from "./grammar.js";
import { codeBlock, formula, typeset } from "./typeset.js";

const LONGEST = 200_000; // characters; what is longer is shown as it is
const PATIENCE = 200; // milliseconds for a single reading: text that takes longer is made to, and is shown as it is
const SAFE = /^(https?:|mailto:)/i;

/** A text as Markdown, in an element that it fills. What is added to the text changes only the end of what is shown. */
export class Markdown {
  constructor(root) {
    this.root = root;
    this.blocks = []; // {raw, node}: what has been read, in order
    this.text = "";
    this.plain = false;
  }

  /** Show this text. `open` says that more is to come. */
  update(text, open = false) {
    text = text.replace(/\r\n?/g, "\n");
    if (this.plain || text.length > LONGEST) return this.asItIs(text);
    const settled = text.startsWith(this.text) && this.open ? this.settled() : 0;
    this.text = text;
    this.open = open;
    const kept = this.blocks.slice(0, settled);
    const from = kept.reduce((sum, block) => sum + block.raw.length, 0);
    const tokens = read(open ? closeMarks(text.slice(from)) : text.slice(from));
    if (!tokens) {
      this.plain = true;
      return this.asItIs(text);
    }
    this.put(settled, tokens, open);
    typeset(this.root);
  }

  /** How many of the blocks nothing that is added can change: those before the last one that shows. */
  settled() {
    let last = this.blocks.length - 1;
    while (last >= 0 && !this.blocks[last].node) last--;
    return Math.max(0, last);
  }

  put(settled, tokens, open) {
    const before = this.blocks.slice(settled);
    this.blocks.length = settled;
    tokens.forEach((token, index) => {
      const old = before[index];
      const last = index === tokens.length - 1;
      if (old && old.raw === token.raw && !old.last === !last) {
        if (old.node?.open && !open) old.node.open = false;
        this.blocks.push(old);
        return;
      }
      const node = block(token, open && last);
      const kept = node && old?.node ? morph(old.node, node) : node;
      if (kept && kept !== old?.node) {
        if (old?.node) old.node.replaceWith(kept);
        else this.root.insertBefore(kept, this.after(before, index));
      } else if (!kept) old?.node?.remove();
      this.blocks.push({ raw: token.raw, node: kept, last });
    });
    for (const old of before.slice(tokens.length)) old.node?.remove();
  }

  /** The element before which a new block stands. */
  after(before, index) {
    return before.slice(index + 1).find((old) => old.node?.parentNode)?.node ?? null;
  }

  asItIs(text) {
    const node = this.root.firstChild;
    if (this.root.childNodes.length === 1 && node.nodeType === Node.TEXT_NODE && text.startsWith(node.data)) {
      node.appendData(text.slice(node.data.length));
    } else this.root.replaceChildren(text);
    this.root.dataset.plain = "";
    this.text = text;
    this.blocks = [];
  }
}

/** A text that does not change, as Markdown. */
export function rendered(text, attributes = {}) {
  const root = el("div", { class: "md", ...attributes });
  new Markdown(root).update(text);
  return root;
}

/** A single line: emphasis, code and formulas, no blocks. */
export function renderedLine(root, text) {
  let tokens = null;
  try {
    tokens = text.length < 2000 ? markdown.lexInline(text) : null;
  } catch {
    // shown as it is
  }
  root.replaceChildren(...(tokens ? inline(tokens) : [text]));
  typeset(root);
}

function read(text) {
  const began = performance.now();
  try {
    const tokens = markdown.lex(text);
    // Where a block begins is counted in characters of the text: a reading that lost some cannot be continued.
    return performance.now() - began < PATIENCE ? tokens : null;
  } catch {
    return null; // nested too deeply
  }
}

/** While a text is being written, marks that are open at its end are closed, so that words do not change when the end comes. */
function closeMarks(text) {
  const start = text.lastIndexOf("\n\n") + 1;
  const line = text.slice(start);
  if (/^\s*(```|~~~)/m.test(text) || line.includes("$") || line.includes("\\")) return text;
  const outside = line.replace(/`[^`]*`/g, "");
  const code = outside.includes("`");
  const bold = !code && (outside.match(/\*\*(?=\S)|(?<=\S)\*\*/g)?.length ?? 0) % 2 === 1 && /\*\*\S/.test(outside);
  if (code) return /`\S[^`]*$/.test(line) ? `${text}\`` : text;
  return bold && !/[\s*]$/.test(text) ? `${text}**` : text;
}

// ---- blocks

function block(token, open = false) {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return el(`h${Math.min(6, token.depth + 3)}`, { "data-depth": String(token.depth) }, ...inline(token.tokens));
    case "code":
      return codeBlock(token.text, token.lang ?? "", open && !/\n[ ]{0,3}(```+|~~~+)[ ]*\n*$/.test(token.raw));
    case "formula":
      return formula(token.text, token.raw, true);
    case "blockquote":
      return el("blockquote", {}, ...blocks(token.tokens));
    case "list":
      return list(token);
    case "hr":
      return el("hr");
    case "table":
      return table(token);
    case "checkbox":
      return inline([token])[0];
    case "text":
    case "paragraph":
      return el("p", {}, ...inline(token.tokens ?? [token]));
    default: // HTML, and what a later version of the parser may know: as it was written
      return el("p", {}, token.raw.trimEnd());
  }
}

function blocks(tokens) {
  return tokens.map((token) => block(token)).filter(Boolean);
}

function list(token) {
  const made = el(token.ordered ? "ol" : "ul");
  if (token.ordered && Number(token.start) !== 1) made.setAttribute("start", String(token.start));
  for (const item of token.items) {
    // The items of a close list hold text without paragraphs around it.
    const parts = item.tokens.flatMap((part) => (part.type === "text" ? inline(part.tokens ?? [part]) : (block(part) ?? [])));
    made.append(el("li", item.task ? { class: "task" } : {}, ...parts));
  }
  return made;
}

function table(token) {
  const cell = (name, { tokens, align }) => el(name, align ? { "data-align": align } : {}, ...inline(tokens));
  const row = (name, cells) => el("tr", {}, ...cells.map((each) => cell(name, each)));
  const head = el("thead", {}, row("th", token.header));
  const body = el("tbody", {}, ...token.rows.map((cells) => row("td", cells)));
  return el("div", { class: "table" }, el("table", {}, head, body));
}

// ---- within a line

function inline(tokens) {
  return tokens.flatMap((token) => {
    switch (token.type) {
      case "strong":
      case "em":
      case "del":
        return el(token.type, {}, ...inline(token.tokens));
      case "codespan":
        return el("code", {}, token.text);
      case "br":
        return el("br");
      case "formula":
        return formula(token.text, token.raw, token.display);
      case "link":
        return link(token.href, inline(token.tokens), token.raw);
      case "image":
        return link(token.href, [token.text || token.href], token.raw);
      case "checkbox":
        return el("input", { type: "checkbox", disabled: "", ...(token.checked ? { checked: "" } : {}) });
      case "html":
        return /^<br\s*\/?>$/i.test(token.raw) ? el("br") : token.raw;
      case "text":
        return token.tokens ? inline(token.tokens) : entity(token.text);
      default:
        return token.text ?? token.raw;
    }
  });
}

/** A link, whose address shows when one points at it; any other kind of address stays text. */
function link(address, children, raw) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return raw;
  }
  if (!SAFE.test(url.protocol)) return raw;
  return el("a", { href: url.href, title: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

// ---- the end of what is being written

/** Make `old` look like `made`, and leave alone what already does. Returns the node that stands there in the end. */
function morph(old, made) {
  if (old.nodeType !== made.nodeType || old.nodeName !== made.nodeName) return made;
  if (old.nodeType === Node.TEXT_NODE) {
    if (made.data.startsWith(old.data)) old.appendData(made.data.slice(old.data.length));
    else old.data = made.data;
    return old;
  }
  if (old.dataset.source !== undefined || made.dataset.source !== undefined) return old.same?.(made) ? old : made;
  for (const { name } of [...old.attributes]) if (!made.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const wanted = [...made.childNodes];
  wanted.forEach((child, index) => {
    const there = old.childNodes[index];
    const kept = there ? morph(there, child) : child;
    if (!there) old.append(kept);
    else if (kept !== there) there.replaceWith(kept);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
  return old;
}
