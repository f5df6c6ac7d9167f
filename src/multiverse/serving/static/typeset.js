// Formulas and code: KaTeX and highlight.js are loaded when the first of them is seen.

import { copyButton } from "./copy.js";
import { el } from "./dom.js";

const LONGEST = { formula: 4000, code: 60_000 };

/** A formula: its source, until it is typeset. */
export function formula(text, raw, display) {
  const made = el("span", { class: display ? "formula display" : "formula", "data-source": "" }, raw.trim());
  made.tex = text;
  made.same = (other) => other.tex === made.tex && other.className.includes("display") === display;
  return made;
}

/** A block of code, in colour once it is `closed`. */
export function codeBlock(text, language, open) {
  const name = language.trim().split(/[\s{,:]/)[0].slice(0, 30);
  const code = el("code", {}, text);
  const head = el("div", { class: "code-head" }, el("span", {}, name), copyButton(() => code.textContent));
  const made = el("figure", { class: "code", "data-source": "" }, head, el("pre", { tabindex: "0" }, code));
  Object.assign(made, { code, name, open });
  // Code that is being written grows as a text; everything else about it stays.
  made.same = (other) => {
    const text = other.code?.textContent;
    if (other.name !== name || text === undefined || !text.startsWith(code.textContent)) return false;
    if (text !== code.textContent) code.append(text.slice(code.textContent.length));
    code.normalize();
    made.open = other.open;
    return true;
  };
  return made;
}

let katex = null;
let hljs = null;

function loadKatex() {
  const sheet = el("link", { rel: "stylesheet", href: new URL("vendor/katex/katex.min.css", import.meta.url).href });
  document.head.append(sheet);
  return import("./vendor/katex/katex.min.js").then(() => globalThis.katex);
}

/** Typeset what is new below an element. */
export function typeset(root) {
  for (const one of root.querySelectorAll(".formula:not([data-set])")) {
    one.dataset.set = "";
    if (one.tex.length > LONGEST.formula) continue;
    (katex ??= loadKatex()).then((library) => setFormula(library, one), () => (katex = null));
  }
  for (const one of root.querySelectorAll("figure.code:not([data-set])")) {
    if (one.open || !one.name) continue;
    one.dataset.set = "";
    if (one.code.textContent.length > LONGEST.code) continue;
    (hljs ??= import("./vendor/highlight/highlight.min.js")).then((library) => setCode(library.default, one), () => (hljs = null));
  }
}

function setFormula(library, one) {
  const made = el("span");
  try {
    // Not trusted: no links, no pictures, no classes or styles of its own; and neither endless macros nor letters like houses.
    library.render(one.tex, made, { displayMode: one.classList.contains("display"), throwOnError: true, trust: false, strict: "ignore", maxExpand: 300, maxSize: 12 });
  } catch (error) {
    one.title = String(error.message).slice(0, 200);
    one.dataset.bad = "";
    return;
  }
  one.replaceChildren(...made.childNodes);
}

function setCode(library, one) {
  if (!library.getLanguage(one.name)) return;
  const { value } = library.highlight(one.code.textContent, { language: one.name, ignoreIllegals: true });
  // Its answer is markup: read in a document of its own, and only the classes of its spans and their text are taken over.
  const parsed = new DOMParser().parseFromString(value, "text/html").body;
  one.code.replaceChildren(...[...parsed.childNodes].map(coloured));
}

function coloured(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return node.textContent;
  const names = [...node.classList].filter((name) => /^[\w-]+$/.test(name));
  return el("span", { class: names.join(" ") }, ...[...node.childNodes].map(coloured));
}
