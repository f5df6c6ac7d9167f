// The time line: for each run its branches as bars over the length of the chain (or over seconds), and below them the same
// tokens laid end to end. The first is as long as the critical path, the second as long as all tokens.

import { Block } from "./model.js";
import { el, svg } from "./dom.js";
import { NAMES, number, parallelism, seconds, times } from "./words.js";

const TALLEST = 12;
const LOWEST = 3;
const CLEAR = 6; // pixels between a count and what stands beside it
const TICK = 8; // pixels of line that remain before the tick at its end

/** Where each lane's bar stands: a parent in the middle of its children, as many rows as branches can run at once. */
function rows(trunk) {
  const place = new Map();
  const height = (lane) => {
    let most = 1;
    for (const item of lane.items) {
      if (item instanceof Block) most = Math.max(most, item.lanes.reduce((sum, child) => sum + height(child), 0));
    }
    return most;
  };
  const put = (lane, top, room) => {
    place.set(lane.id, top + room / 2);
    for (const item of lane.items) {
      if (!(item instanceof Block)) continue;
      const heights = item.lanes.map(height);
      let at = top + (room - heights.reduce((sum, one) => sum + one, 0)) / 2;
      item.lanes.forEach((child, index) => {
        put(child, at, heights[index]);
        at += heights[index];
      });
    }
  };
  const total = height(trunk);
  put(trunk, 0, total);
  return { place, total };
}

/** The spans of all lanes in the order of the document. */
function inOrder(lane) {
  const found = [];
  const blocks = lane.items.filter((item) => item instanceof Block && item.forked);
  lane.spans.forEach((span, index) => {
    found.push({ lane, span });
    if (blocks[index]) for (const child of blocks[index].lanes) found.push(...inOrder(child));
  });
  if (!lane.spans.length && blocks[0]) for (const child of blocks[0].lanes) found.push(...inOrder(child));
  return found;
}

function hue(node, lane) {
  if (lane.hue === null) node.classList.add("trunk");
  else node.style.setProperty("--h", lane.hue);
  return node;
}

/** One run's line. */
class Line {
  constructor(track) {
    this.track = track;
    this.name = el("b", {}, NAMES[track.mode] ?? track.mode);
    this.clock = el("span", { class: "clock" });
    this.facts = el("span", { class: "facts" });
    this.svg = svg("svg", { "aria-hidden": "true" });
    this.lengths = new Map(); // of texts that were measured
    this.el = el("div", { class: "line", "data-mode": track.mode }, el("div", { class: "line-head" }, this.name, this.clock, this.facts), this.svg);
  }

  draw(width, domain, axis, tallest) {
    const { full, run } = this.track;
    const layout = rows(full.trunk);
    const bar = Math.max(LOWEST, Math.min(TALLEST, tallest / layout.total - 2));
    const pitch = bar + Math.max(1, Math.min(3, bar / 3));
    const x = (value) => (value / domain) * width;
    const ends = axis === "tokens" ? ["from", "to"] : ["begin", "end"];
    const y = (lane) => layout.place.get(lane.id) * pitch;
    const nodes = [];
    const rect = (lane, from, to, name) =>
      nodes.push(hue(svg("rect", { class: name, x: x(from), width: Math.max(1, x(to) - x(from) - 0.5), y: y(lane) - bar / 2, height: bar, rx: Math.min(3, bar / 2) }), lane));
    const links = (lane) => {
      const blocks = lane.items.filter((item) => item instanceof Block && item.forked);
      blocks.forEach((block, index) => {
        const from = lane.spans[index]?.[ends[1]] ?? 0;
        const to = lane.spans[index + 1]?.[ends[0]];
        const ys = block.lanes.map(y);
        nodes.push(svg("path", { class: "link", d: `M${x(from)} ${Math.min(...ys, y(lane))}V${Math.max(...ys, y(lane))}` }));
        if (to !== undefined) nodes.push(svg("path", { class: "link", d: `M${x(to)} ${Math.min(...ys, y(lane))}V${Math.max(...ys, y(lane))}` }));
        for (const child of block.lanes) {
          const last = child.spans[child.spans.length - 1];
          if (to !== undefined && last) nodes.push(hue(svg("path", { class: "wait", d: `M${x(last[ends[1]])} ${y(child)}H${x(to)}` }), child));
          links(child);
        }
      });
    };
    links(full.trunk);
    const behind = run !== full && this.track.index < this.track.moments.length;
    for (const { lane, span } of inOrder(full.trunk)) rect(lane, span[ends[0]], span[ends[1]], behind ? "bar ghost" : "bar");
    if (behind) for (const { lane, span } of inOrder(run.trunk)) rect(lane, span[ends[0]], span[ends[1]], "bar");
    const height = layout.total * pitch;
    let bottom = height + 2;
    if (axis === "tokens") {
      const tokens = run.tokens;
      bottom = this.measure(nodes, x, bottom, tokens.critical_path, "critical path", width, "chain");
      if (full.forks || (this.track.mode === "parallel" && !full.finish)) {
        bottom += 3;
        let at = 0;
        for (const { lane, span } of inOrder(run.trunk)) {
          const length = span.to - span.from;
          nodes.push(hue(svg("rect", { class: "bar strip", x: x(at), width: Math.max(0.5, x(length) + 0.3), y: bottom, height: 5 }), lane));
          at += length;
        }
        bottom = this.measure(nodes, x, bottom + 6, tokens.total, "all tokens, end to end", width, "sum");
      }
    }
    if (behind || axis === "seconds") {
      const at = axis === "tokens" ? run.tokens.critical_path : this.shown;
      if (behind) nodes.push(svg("path", { class: "playhead", d: `M${x(Math.min(at, domain))} 0V${height}` }));
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${bottom}`);
    this.svg.setAttribute("height", bottom);
    this.svg.replaceChildren(...nodes);
  }

  /** A line as long as a count, with the count behind its end; where there is no room for that, in a gap of the line. */
  measure(nodes, x, top, count, words, width, name) {
    if (!count) return top + 15;
    const end = x(count);
    const text = svg("text", { class: `measured ${name}`, y: top + 11 });
    text.append(svg("tspan", { class: "count" }, number(count)), ` ${words}`);
    const room = this.lengthOf(text) + 2 * CLEAR;
    const outside = end + room < width;
    const from = outside ? end : Math.max(0, Math.min(end - TICK, width) - room);
    const line = outside ? `M0.5 ${top + 7}H${end}` : `M0.5 ${top + 7}H${from}M${from + room} ${top + 7}H${end}`;
    nodes.push(svg("path", { class: `measure ${name}`, d: `M0.5 ${top + 4}v6M${end - 0.5} ${top + 4}v6${line}` }));
    text.setAttribute("x", from + CLEAR);
    nodes.push(text);
    return top + 15;
  }

  /** How wide a text is, in the fonts of this machine. */
  lengthOf(text) {
    const words = text.textContent;
    if (!this.lengths.has(words)) {
      if (this.lengths.size > 200) this.lengths.clear();
      this.svg.append(text);
      this.lengths.set(words, text.getComputedTextLength());
      text.remove();
    }
    return this.lengths.get(words);
  }

  tell(clock) {
    const { run } = this.track;
    this.shown = clock;
    const facts = run.forks ? `${times(parallelism(run.tokens))} parallel` : `${number(run.tokens.total)} tokens`;
    const written = this.track.measured ? seconds(clock) : "";
    if (this.clock.textContent !== written) this.clock.textContent = written;
    if (this.facts.textContent !== facts) this.facts.textContent = facts;
    this.el.dataset.state = run.finish ? "over" : "running";
  }
}

/** The chart as a whole; `seek(value, axis)` is called when somebody points at a moment. */
export class Timeline {
  constructor(root, seek) {
    this.root = root;
    this.axis = "tokens";
    this.lines = [];
    this.ruler = svg("svg", { class: "ruler", "aria-hidden": "true" });
    this.drawn = "";
    const point = (event) => {
      const box = this.ruler.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      seek(share * this.domain, this.axis);
    };
    root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".line-head")) return;
      root.setPointerCapture(event.pointerId);
      point(event);
    });
    root.addEventListener("pointermove", (event) => {
      if (root.hasPointerCapture(event.pointerId)) point(event);
    });
    new ResizeObserver(() => (this.drawn = "")).observe(root);
  }

  load(tracks) {
    this.lines = tracks.map((track) => new Line(track));
    this.root.replaceChildren(...this.lines.map((line) => line.el), el("div", { class: "line foot" }, el("div", { class: "line-head" }), this.ruler));
    this.drawn = "";
  }

  /** The value at the right edge. While more is to come there is room for it, which doubles when it is used up. */
  get domain() {
    const inSeconds = this.axis === "seconds";
    const values = this.lines.map(({ track }) => (inSeconds ? track.duration : track.full.tokens.total));
    const most = Math.max(inSeconds ? 0.1 : 8, ...values);
    if (this.lines.every(({ track }) => track.done)) return most;
    const least = inSeconds ? 1 : 64;
    return least * 2 ** Math.max(0, Math.ceil(Math.log2((1.02 * most) / least)));
  }

  /** @param {number[]} clocks seconds of each run, as shown */
  draw(clocks) {
    this.lines.forEach((line, index) => line.tell(clocks[index]));
    const state = [this.axis, ...this.lines.map(({ track }) => `${track.index}/${track.moments.length}/${track.done}`)].join();
    if (state === this.drawn || !this.lines.length) return;
    const width = this.ruler.clientWidth;
    if (!width) return;
    this.drawn = state;
    const tallest = this.root.clientWidth < 640 ? 60 : 110;
    for (const line of this.lines) line.draw(width, this.domain, this.axis, tallest);
    this.rule(width);
  }

  rule(width) {
    const domain = this.domain;
    const fit = Math.max(2, Math.floor(width / 90));
    const rough = domain / fit;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const nodes = [svg("path", { class: "rule", d: `M0 .5H${width}` })];
    const unit = this.axis === "tokens" ? "tokens" : "s";
    for (let value = 0; value <= domain + step / 1e6; value += step) {
      const at = (value / domain) * width;
      nodes.push(svg("path", { class: "rule", d: `M${Math.min(width - 0.5, Math.max(0.5, at))} 0v4` }));
      const shown = this.axis === "tokens" ? number(Math.round(value)) : String(+value.toFixed(3));
      const anchor = value === 0 ? "start" : at > width - 24 ? "end" : "middle";
      nodes.push(svg("text", { x: at, y: 15, "text-anchor": anchor }, value === 0 ? `0 ${unit}` : shown));
    }
    this.ruler.setAttribute("viewBox", `0 0 ${width} 18`);
    this.ruler.setAttribute("height", 18);
    this.ruler.replaceChildren(...nodes);
  }
}
