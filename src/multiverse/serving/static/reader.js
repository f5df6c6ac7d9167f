// One branch by itself, at a size for reading, with what is nested in it.

import { Block, everyLane } from "./model.js";
import { copy } from "./copy.js";
import { byId, el } from "./dom.js";
import { Markdown, renderedLine } from "./markdown.js";
import { number } from "./words.js";

/** What a branch says as elements; those of a text that is known already are kept, and go on. */
function body(lane, views) {
  const shown = (item, name, open) => {
    const text = item.text.trim();
    if (!text) return [];
    if (!views.has(item)) views.set(item, new Markdown(el("div", { class: name })));
    const view = views.get(item);
    if (view.text !== text || view.open !== open) view.update(text, open);
    return [view.root];
  };
  return lane.items.flatMap((item, index) => {
    const open = lane.stage === "running" && index === lane.items.length - 1;
    if (!(item instanceof Block)) return shown(item, "md", open);
    const children = item.lanes.map((child) => {
      const title = el("span");
      renderedLine(title, child.title.trim());
      const section = el("section", {}, el("h3", {}, el("span", { class: "chip" }, child.label), " ", title), ...body(child, views));
      section.style.setProperty("--h", child.hue);
      return section;
    });
    return [...children, ...shown(item.conclusion, "md conclusion", open)];
  });
}

/** What a branch says, with what is nested in it, as it was written. */
function plain(lane, level = "#") {
  return lane.items
    .flatMap((item) => {
      if (!(item instanceof Block)) return [item.text.trim()];
      const inner = item.lanes.map((child) => `${level}# ${child.label} ${child.title.trim()}\n\n${plain(child, `${level}#`)}`);
      return [...inner, item.conclusion.text.trim()];
    })
    .filter(Boolean)
    .join("\n\n");
}

export class Reader {
  constructor(player) {
    this.player = player;
    this.dialog = byId("lane-dialog");
    byId("lane-before").addEventListener("click", () => this.move(-1));
    byId("lane-after").addEventListener("click", () => this.move(1));
    byId("lane-copy").addEventListener("click", () => this.lane && copy(plain(this.lane)));
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "k") this.move(-1);
      if (event.key === "ArrowRight" || event.key === "j") this.move(1);
    });
    // A click beside it closes it.
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  open(track, lane) {
    this.track = track;
    this.id = lane.id;
    this.drawn = "";
    this.views = new Map();
    this.draw(true);
    if (!this.dialog.open) this.dialog.showModal();
    byId("lane-text").scrollTop = 0;
  }

  move(by) {
    const lanes = everyLane(this.track.run.trunk);
    const at = lanes.findIndex((lane) => lane.id === this.id);
    if (lanes.length) this.open(this.track, lanes[(at + by + lanes.length) % lanes.length]);
  }

  /** Follows the run while it is open. */
  draw(force = false) {
    if (!force && !this.dialog.open) return;
    const state = `${this.id} ${this.track.generation} ${this.track.index}`;
    if (state === this.drawn) return;
    const lane = everyLane(this.track.run.trunk).find((one) => one.id === this.id);
    if (!lane) return; // not yet, at the moment shown
    this.drawn = state;
    this.lane = lane;
    this.dialog.style.setProperty("--h", lane.hue);
    byId("lane-chip").textContent = lane.label;
    renderedLine(byId("lane-title"), lane.title.trim());
    byId("lane-facts").textContent = `${number(lane.tokens)} tokens of its own`;
    byId("lane-text").replaceChildren(...body(lane, this.views));
  }
}
