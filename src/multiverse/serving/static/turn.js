// One question of a conversation and what came of it. One turn is open: the tree of its branches stands in it. The others show
// their answer, and the headings of their branches, with which they are opened.

import { copyButton } from "./copy.js";
import { el } from "./dom.js";
import { rendered, renderedLine } from "./markdown.js";
import { Block, Run } from "./model.js";
import { number, parallelism, seconds, times } from "./words.js";

/** What a run answered, as Markdown: also while it runs. */
export function answerOf(run) {
  if (!run.forkedAnswer && run.shownAnswer) return run.shownAnswer;
  if (run.finish?.answer) return run.finish.answer;
  const texts = run.trunk.items.map((item) => (item instanceof Block ? item.conclusion.text : item.text).trim());
  return texts.filter(Boolean).join("\n\n");
}

function button(label, title, act) {
  const made = el("button", { type: "button", class: "quiet", title }, label);
  made.addEventListener("click", act);
  return made;
}

export class Turn {
  /**
   * @param {object} exchange what was asked, and its runs
   * @param {object} does what its buttons do: `open`, `edit(text)`, `again`, `version(by)`
   */
  constructor(exchange, does) {
    this.exchange = exchange;
    this.does = does;
    this.question = el("div", { class: "bubble" }, exchange.question);
    this.versions = el("span", { class: "versions" });
    this.asking = el("div", { class: "acts" }, this.versions, button("Edit", "Edit, and ask again (E)", () => this.edit()), copyButton(() => exchange.question, "Copy", { title: "Copy the question" }));
    this.asked = el("header", { class: "asked" }, this.question, this.asking);
    this.body = el("div", { class: "turn-body" });
    this.facts = el("span", { class: "facts" });
    this.answering = el("footer", { class: "acts" }, copyButton(() => this.answer, "Copy answer", { title: "Copy the answer, as Markdown" }), button("Ask again", "Ask the same again (R)", () => does.again()), el("span", { class: "gap" }), this.facts);
    this.el = el("article", { class: "turn", "aria-label": "Turn" }, this.asked, this.body, this.answering);
    this.asked.hidden = !exchange.question;
  }

  get answer() {
    return answerOf(this.tracks?.[0]?.full ?? this.read(0));
  }

  /** A run as it ended. */
  read(index) {
    const run = new Run(this.exchange.runs[index]?.mode ?? "parallel");
    for (const moment of this.exchange.runs[index]?.moments ?? []) run.feed(moment);
    return run;
  }

  /** Which of several versions this is; nothing where there is only one. */
  number(at, count) {
    if (count < 2) {
      this.versions.replaceChildren();
      return;
    }
    const before = button("‹", "The version before", () => this.does.version(-1));
    const after = button("›", "The version after", () => this.does.version(1));
    before.disabled = at === 0;
    after.disabled = at === count - 1;
    this.versions.replaceChildren(before, `${at + 1} of ${count}`, after);
  }

  /** Take the tree in. */
  open(...nodes) {
    this.el.dataset.open = "";
    this.body.replaceChildren(...nodes);
  }

  /** Show the answer instead. */
  close() {
    delete this.el.dataset.open;
    const run = this.read(0);
    const lanes = run.trunk.items.filter((item) => item instanceof Block).flatMap((block) => block.lanes);
    const chips = lanes.map((lane) => {
      const title = el("span");
      renderedLine(title, lane.title.trim());
      const chip = el("span", { class: "lane-chip" }, el("span", { class: "chip" }, lane.label), " ", title);
      chip.style.setProperty("--h", lane.hue);
      return chip;
    });
    const open = el("button", { type: "button", class: "summary", title: "Show how it was written" }, ...chips, chips.length ? "" : "Show how it was written");
    open.addEventListener("click", () => this.does.open());
    this.body.replaceChildren(open, rendered(answerOf(run) || "No answer.", { class: "md said" }));
    this.tell(run);
  }

  /** The figures below the answer. */
  tell(run, window = 0) {
    const { total } = run.tokens;
    const { first } = this.exchange;
    const prompt = run.finish?.usage?.prompt_tokens;
    const facts = [
      total ? `${number(total)} tokens` : "",
      run.forks ? `${times(parallelism(run.tokens))} parallel` : "",
      total && run.seconds > 0 ? `${number(Math.round(total / run.seconds))} tokens/s` : "",
      first > 0 ? `first after ${seconds(first)}` : "",
      prompt && window ? `${number(prompt + total)} of ${number(window)} tokens of context` : "",
    ];
    const text = facts.filter(Boolean).join(" · ");
    if (this.facts.textContent !== text) this.facts.textContent = text;
  }

  /** Write the question anew. */
  edit() {
    if (this.editor) {
      this.editor.focus();
      return;
    }
    this.editor = el("textarea", { rows: "2", "aria-label": "Question" });
    this.editor.value = this.exchange.question;
    const ask = button("Ask", "Ask this instead", () => this.send());
    ask.className = "primary";
    const form = el("div", { class: "editing" }, this.editor, el("div", { class: "buttons" }, button("Cancel", "Leave it as it was", () => this.endEdit()), ask));
    this.editor.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.endEdit();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    this.question.replaceWith(form);
    this.form = form;
    this.editor.focus();
  }

  send() {
    const text = this.editor.value.trim();
    if (!text) return;
    this.endEdit();
    this.does.edit(text);
  }

  endEdit() {
    this.form.replaceWith(this.question);
    this.editor = this.form = null;
  }
}
