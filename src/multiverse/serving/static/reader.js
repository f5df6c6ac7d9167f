// One branch by itself, at a size for reading, with what is nested in it.

import { Block, everyLane } from "./model.js";
import { byId, el } from "./dom.js";
import { number } from "./words.js";

function body(lane) {
  return lane.items.flatMap((item) => {
    if (!(item instanceof Block)) return item.text.trim() ? [el("p", {}, item.text.trim())] : [];
    const children = item.lanes.map((child) => {
      const section = el("section", {}, el("h3", {}, el("span", { class: "chip" }, child.label), ` ${child.title.trim()}`), ...body(child));
      section.style.setProperty("--h", child.hue);
      return section;
    });
    const conclusion = item.conclusion.text.trim();
    return [...children, ...(conclusion ? [el("p", { class: "conclusion" }, conclusion)] : [])];
  });
}

export class Reader {
  constructor(player) {
    this.player = player;
    this.dialog = byId("lane-dialog");
    byId("lane-before").addEventListener("click", () => this.move(-1));
    byId("lane-after").addEventListener("click", () => this.move(1));
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
    this.dialog.style.setProperty("--h", lane.hue);
    byId("lane-chip").textContent = lane.label;
    byId("lane-title").textContent = lane.title.trim();
    byId("lane-facts").textContent = `${number(lane.tokens)} tokens of its own`;
    byId("lane-text").replaceChildren(...body(lane));
  }
}
