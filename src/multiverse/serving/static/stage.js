// The generation drawn as a tree: trunk, fork, lanes side by side, join, answer.
//
// Views are kept and only what a run has marked as touched is written again. How many lanes stand side by side depends on the
// width that a block has, at any depth; see `arrange`.

import { Block } from "./model.js";
import { el, svg } from "./dom.js";
import { Markdown, renderedLine } from "./markdown.js";
import { seconds } from "./words.js";

const GAP = 12;
const MOST = 6;
const NARROWEST = { trunk: 208, lane: 172 };
const FRAME = 42; // what a lane in a lane takes of its width, where lanes stand one below the other

/** How many lanes stand side by side: as many as fit, spread evenly over the rows that it takes. */
export function columns(lanes, width, narrowest) {
  const most = Math.max(1, Math.min(MOST, Math.floor((width + GAP) / (narrowest + GAP))));
  const fitted = Math.ceil(lanes / Math.ceil(lanes / most));
  return fitted === 2 && lanes === 3 ? 1 : fitted; // two and one look like a mistake
}

/** How many levels of blocks there are in a block's lanes. */
function levels(block) {
  const below = block.lanes.flatMap((lane) => lane.items.filter((item) => item instanceof Block));
  return Math.max(0, ...below.map((each) => 1 + levels(each)));
}

const sizes = new ResizeObserver((entries) => {
  // In the next frame: arranging changes sizes, which an observer must not do while it is told of them.
  requestAnimationFrame(() => {
    for (const entry of entries) entry.target.view?.arrange(entry.target.clientWidth);
  });
});

/** Text that grows. White space at its ends is not shown: it belongs to the tags around it. */
class TextView {
  constructor(item) {
    this.item = item;
    this.text = "";
    this.open = false; // whether more is to come
    this.el = el("div", { class: `text md is-${item.role}` });
    this.markdown = new Markdown(this.el);
    this.stuck = true;
    this.el.view = this;
    sizes.observe(this.el);
    this.el.addEventListener("scroll", () => {
      this.stuck = this.el.scrollHeight - this.el.scrollTop - this.el.clientHeight < 24;
    });
  }

  update(open, text = this.item.text.trim()) {
    if (text === this.text && open === this.open) return false;
    this.text = text;
    this.open = open;
    this.markdown.update(text, open);
    this.el.hidden = !text;
    return true;
  }

  /** The width has changed. */
  arrange() {
    this.settle();
  }

  /** After all has been written: keep the end in view. */
  settle() {
    if (this.stuck) this.el.scrollTop = 1e9;
    this.el.toggleAttribute("data-over", this.el.scrollHeight > this.el.clientHeight + 2);
  }
}

class BlockView {
  constructor(block, stage) {
    this.block = block;
    this.stage = stage;
    this.lanes = [];
    this.cols = 0;
    this.fork = svg("svg", { class: "fan fork", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.join = svg("svg", { class: "fan join", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.grid = el("div", { class: "lanes" });
    this.conclusion = new TextView(block.conclusion);
    this.conclusion.el.hidden = true;
    this.el = el("section", { class: "block" }, this.fork, this.grid, this.join, this.conclusion.el);
    this.el.view = this;
    sizes.observe(this.el);
  }

  update(touched) {
    const { block } = this;
    if (this.el.dataset.stage !== block.stage) {
      this.el.dataset.stage = block.stage;
      if (block.joined) for (const line of this.join.children) line.dataset.stage = "ended";
    }
    const before = this.lanes.length;
    for (const lane of block.lanes.slice(before)) {
      const view = new LaneView(lane, this.stage);
      this.stage.views.set(lane, view);
      this.lanes.push(view);
      this.grid.append(view.el);
      view.update(touched);
    }
    if (this.lanes.length !== before) {
      this.el.setAttribute("aria-label", `${this.lanes.length} branches`);
      this.arrange(this.el.clientWidth);
      // Those around it may have to give it more room.
      for (let outer = this.el.parentElement.closest(".block"); outer; outer = outer.parentElement.closest(".block")) {
        outer.view.arrange(outer.clientWidth);
      }
    }
    const { lane } = block;
    const open = this.stage.running(lane) && lane.items[lane.items.length - 1] === block;
    if (this.conclusion.update(open)) touched.push(this.conclusion);
  }

  /** Put the lanes into columns and draw the lines that lead to them. */
  arrange(width) {
    const count = this.lanes.length;
    if (!width || !count) return;
    const own = this.block.lane.parent === null ? NARROWEST.trunk : NARROWEST.lane;
    const cols = columns(count, width, own + FRAME * levels(this.block));
    if (cols === this.cols && count === this.drawn) return;
    this.cols = cols;
    this.drawn = count;
    this.el.dataset.shape = cols >= count && cols > 1 ? "fan" : cols > 1 ? "grid" : "stack";
    this.grid.style.setProperty("--cols", cols);
    this.lanes.forEach((view, index) => {
      const last = index % cols === cols - 1 || index === count - 1;
      const rows = [index < cols ? "first" : "", index >= count - (((count - 1) % cols) + 1) ? "last" : ""];
      view.el.dataset.column = `${index % cols === 0 ? "first" : ""} ${last ? "last" : ""}`.trim();
      view.el.dataset.row = rows.join(" ").trim();
      view.el.style.setProperty("--missing", index === count - 1 ? cols - 1 - (index % cols) : 0);
    });
    const at = (index) => ((index + 0.5) * 100) / count;
    const line = (path, view) => {
      const drawn = svg("path", { d: path, "data-stage": view.lane.stage });
      drawn.style.setProperty("--h", view.lane.hue);
      return drawn;
    };
    const one = this.el.dataset.shape === "fan";
    this.fork.replaceChildren(
      ...(one ? this.lanes.map((view, i) => line(`M50 0C50 62 ${at(i)} 38 ${at(i)} 100`, view)) : [svg("path", { d: "M50 0V100", class: "plain" })]),
    );
    this.join.replaceChildren(
      ...(one ? this.lanes.map((view, i) => line(`M${at(i)} 0C${at(i)} 62 50 38 50 100`, view)) : [svg("path", { d: "M50 0V100", class: "plain" })]),
    );
  }

  /** Lanes have moved on: their lines show it. */
  mark(index, stage) {
    if (this.el.dataset.shape !== "fan") return;
    for (const fan of [this.fork, this.join]) if (fan.children[index]) fan.children[index].dataset.stage = stage;
  }
}

/** A lane; the trunk is one without a frame. */
class LaneView {
  constructor(lane, stage) {
    this.lane = lane;
    this.stage = stage;
    this.items = [];
    this.body = el("div", { class: "body" });
    if (lane.parent === null) {
      this.el = this.body;
      this.el.classList.add("trunk");
      return;
    }
    this.title = el("span", { class: "title" });
    this.count = el("span", { class: "count" });
    this.head = el("button", { type: "button", class: "head", title: "Read this branch whole (Enter)" },
      el("span", { class: "chip" }, lane.label), this.title, this.count, el("span", { class: "mark", "aria-hidden": "true" }));
    this.head.addEventListener("click", () => this.stage.read(lane));
    this.el = el("article", { class: "lane", "data-depth": String(lane.depth) }, el("div", { class: "card" }, this.head, this.body));
    this.el.style.setProperty("--h", lane.hue);
  }

  update(touched) {
    const { lane } = this;
    if (lane.parent) this.frame();
    lane.items.forEach((item, index) => {
      let view = this.items[index];
      if (!view) {
        view = item instanceof Block ? new BlockView(item, this.stage) : new TextView(item);
        this.items.push(view);
        this.body.append(view.el);
      }
      // Only the last block and what follows it can change.
      if (view instanceof BlockView) view.update(touched);
      else if (view.update(this.stage.running(lane) && index === lane.items.length - 1)) touched.push(view);
    });
  }

  frame() {
    const { lane } = this;
    const title = lane.title.trim();
    if (this.title.title !== title) {
      renderedLine(this.title, title);
      this.title.title = title;
    }
    const count = lane.tokens ? String(lane.tokens) : "";
    if (this.count.textContent !== count) this.count.textContent = count;
    const stage = lane.reason && lane.reason !== "stop" ? "cut" : lane.stage;
    if (this.el.dataset.stage !== stage) {
      this.el.dataset.stage = stage;
      const words = { planned: "planned", running: "being written", waiting: "waits for its branches", ended: "closed" };
      const cut = { length: "cut at its length", budget: "cut at the budget", deadline: "cut at the deadline" };
      const word = stage === "cut" ? (cut[lane.reason] ?? `cut: ${lane.reason}`) : words[stage];
      this.head.setAttribute("aria-label", `Branch ${lane.label} ${title}, ${word}`);
      this.count.title = stage === "cut" ? word : "tokens of its own";
      const block = this.stage.views.get(lane.parent)?.items.find((view) => view instanceof BlockView && view.block.lanes.includes(lane));
      if (block) block.mark(block.block.lanes.indexOf(lane), lane.stage);
    }
  }
}

/** One run on the page. */
export class Stage {
  /** @param {(lane: object) => void} read called when somebody wants to read a lane by itself */
  constructor(track, read) {
    this.track = track;
    this.read = read;
    this.name = el("h2", {});
    this.clock = el("span", { class: "clock" });
    this.facts = el("span", { class: "facts" });
    this.head = el("header", { class: "run-head" }, this.name, this.clock, this.facts);
    this.tree = el("div", { class: "tree" });
    this.el = el("section", { class: "run", "data-mode": track.mode, "aria-label": `${track.mode} run` }, this.head, this.tree);
    this.restart();
  }

  restart() {
    this.run = this.track.run;
    this.generation = this.track.generation;
    this.views = new Map();
    this.trunk = new LaneView(this.run.trunk, this);
    this.views.set(this.run.trunk, this.trunk);
    this.answer = new TextView(this.run.answer);
    this.answerBox = el("section", { class: "answer", "aria-label": "Answer", hidden: "" }, el("h3", {}, "Answer"), this.answer.el);
    this.ending = el("p", { class: "ending", hidden: "" });
    this.waiting = el("p", { class: "waiting" }, el("i", {}), el("i", {}), el("i", {}));
    this.tree.replaceChildren(this.waiting, this.trunk.el, this.answerBox, this.ending);
    for (const lane of this.run.lanes.values()) this.run.dirty.add(lane);
  }

  /** Whether a lane is being written, at the moment shown. */
  running(lane) {
    return lane.stage === "running" && !this.run.finish;
  }

  /** Bring the page up to where the run is. Returns whether anything changed. */
  draw() {
    if (this.track.generation !== this.generation) this.restart();
    const { run } = this;
    if (this.track.done && !this.track.moments.length) this.waiting.hidden = true;
    if (!run.dirty.size) return false;
    const touched = [];
    for (const lane of run.dirty) this.views.get(lane)?.update(touched);
    run.dirty.clear();
    if (this.answer.update(!run.finish, run.shownAnswer)) {
      this.answerBox.toggleAttribute("data-short", run.shownAnswer.length <= 40);
      this.answerBox.hidden = !run.shownAnswer;
      touched.push(this.answer);
    }
    for (const view of touched) view.settle();
    this.waiting.hidden = run.trunk.items.length > 0 || run.finish !== null || this.answer.text !== "";
    this.el.dataset.state = run.finish ? "over" : "running";
    const ending = endingOf(run);
    this.ending.textContent = ending;
    this.ending.hidden = !ending;
    return true;
  }

  /** The line above a run, for when two stand beside each other. */
  tell(name, clock, facts) {
    for (const [node, text] of [[this.name, name], [this.clock, seconds(clock)], [this.facts, facts]]) {
      if (node.textContent !== text) node.textContent = text;
    }
  }
}

/** Why a run stopped early, in words; empty if it came to its end. */
function endingOf(run) {
  if (!run.finish) return "";
  const detail = run.finish.structure_error;
  switch (run.finish.finish_reason) {
    case undefined:
    case "stop":
      return "";
    case "length":
      return "Wound up before its end: it came to the most tokens it may write.";
    case "budget":
      return "Wound up before its end: it came to its thinking budget.";
    case "deadline":
      return "Wound up before its end: it came to its deadline.";
    case "malformed":
      return `Stopped: the model broke the grammar (${detail}).`;
    case "abort":
      return "Stopped.";
    default:
      return `Stopped: ${detail ?? run.finish.finish_reason}.`;
  }
}
