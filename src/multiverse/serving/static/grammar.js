// How models write: Markdown as GitHub has it, with formulas, and without what reasoning would trip over.

import { Marked } from "./vendor/marked/marked.esm.js";

const INLINE = [
  [/^\$\$(?!\$)([^$]+?)\$\$/, true],
  // One dollar: not before or after a space, and not before a figure, so that prices stay prices.
  [/^\$(?![\s$])((?:\\[^\n]|[^$\\\n])*?[^\s\\$]|\\[^\n])\$(?![\d$])/, false],
  [/^\\\(([^]+?)\\\)/, false],
  [/^\\\[([^]+?)\\\]/, true],
];
const ENVIRONMENTS = "equation|align|aligned|gather|multline|alignat|eqnarray|[bpvBV]?matrix|cases|array";
const DISPLAYED = [
  /^ {0,3}\$\$([^$]+?)\$\$[ \t]*(?:\n+|$)/,
  /^ {0,3}\\\[([^]+?)\\\][ \t]*(?:\n+|$)/,
  new RegExp(`^ {0,3}(\\\\begin\\{(${ENVIRONMENTS})\\*?\\}[^]+?\\\\end\\{\\2\\*?\\})[ \\t]*(?:\\n+|$)`),
];

const inlineFormula = {
  name: "formula",
  level: "inline",
  start: (text) => text.match(/\$|\\[([]/)?.index,
  tokenizer(text) {
    for (const [pattern, display] of INLINE) {
      const found = pattern.exec(text);
      if (found) return { type: "formula", raw: found[0], text: found[1].trim(), display };
    }
    return undefined;
  },
};

const displayedFormula = {
  name: "formula",
  level: "block",
  start: (text) => text.match(/^ {0,3}(\$\$|\\\[|\\begin\{)/m)?.index,
  tokenizer(text) {
    for (const pattern of DISPLAYED) {
      const found = pattern.exec(text);
      if (found) return { type: "formula", raw: found[0], text: found[1].trim(), display: true };
    }
    return undefined;
  },
};

const tokenizer = {
  /** A star between two words multiplies: 3*4*5. */
  emStrong(text, _, before) {
    return /^\*(?!\*)/.test(text) && /[\p{L}\p{N})\]]$/u.test(before ?? "") && /^\*[\p{L}\p{N}([]/u.test(text) ? undefined : false;
  },
  /** One tilde means about. */
  del: (text) => (text.startsWith("~~") ? false : undefined),
  /** Indented text is no code, and a line under a text makes no heading of it. */
  code: () => undefined,
  lheading: () => undefined,
};

const marked = new Marked({ gfm: true, breaks: true });
marked.use({ tokenizer, extensions: [inlineFormula, displayedFormula] });

export const markdown = {
  lex: (text) => marked.lexer(text),
  lexInline: (text) => new marked.Lexer(marked.defaults).inlineTokens(text),
};
