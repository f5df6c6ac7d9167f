// The conversations that this browser keeps, in a drawer.

import { byId, el } from "./dom.js";
import { forget, load, store, titles } from "./store.js";

const dialog = byId("history-dialog");

/** When something was, as one says it. */
function when(time) {
  const date = new Date(time);
  const today = new Date();
  const days = Math.round((new Date(today.toDateString()) - new Date(date.toDateString())) / 86_400_000);
  if (days === 0) return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (days < 7) return days === 1 ? "yesterday" : date.toLocaleDateString([], { weekday: "long" });
  return date.toLocaleDateString([], { day: "numeric", month: "short", year: date.getFullYear() === today.getFullYear() ? undefined : "numeric" });
}

export class History {
  /** @param {object} does `open(id)`, `gone(ids)`, `current()` */
  constructor(does) {
    this.does = does;
    this.known = [];
    byId("history-search").addEventListener("input", () => this.draw());
    byId("history-clear").addEventListener("click", () => this.clear());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  async show() {
    byId("history-search").value = "";
    await this.read();
    if (!dialog.open) dialog.showModal();
  }

  async read() {
    this.known = await titles().catch(() => null);
    this.draw();
  }

  draw() {
    const list = byId("history-list");
    byId("history-clear").hidden = !this.known?.length;
    if (!this.known) {
      list.replaceChildren(el("li", { class: "soft" }, "This browser keeps nothing here: is it a private window?"));
      return;
    }
    const words = byId("history-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.known.filter(({ title, words: all }) => words.every((word) => `${title}\n${all}`.toLowerCase().includes(word)));
    const nothing = el("li", { class: "soft" }, words.length ? "Nothing has all of these words." : "Nothing yet. What you ask is kept here, in this browser.");
    list.replaceChildren(...(found.length ? found.map((entry) => this.row(entry)) : [nothing]));
  }

  row(entry) {
    const { id, title, updated } = entry;
    const open = el("button", { type: "button", class: "open" }, el("span", {}, title), el("time", { datetime: new Date(updated).toISOString() }, when(updated)));
    open.addEventListener("click", () => {
      dialog.close();
      this.does.open(id);
    });
    const name = el("button", { type: "button", class: "quiet", "aria-label": `Rename ${title}` }, "Rename");
    const remove = el("button", { type: "button", class: "quiet", "aria-label": `Delete ${title}` }, "Delete");
    remove.addEventListener("click", () => this.remove([id]));
    const row = el("li", id === this.does.current() ? { "aria-current": "true" } : {}, open, name, remove);
    name.addEventListener("click", () => this.rename(row, entry));
    return row;
  }

  rename(row, entry) {
    const { id, title } = entry;
    const field = el("input", { type: "text", maxlength: "200", "aria-label": "Title" });
    field.value = title;
    row.replaceChildren(field);
    field.select();
    const end = async (keep) => {
      if (!field.isConnected || field.done) return;
      field.done = true;
      const chosen = field.value.trim();
      if (keep && chosen && chosen !== title) {
        await this.does.rename(id, chosen);
        entry.title = chosen;
      }
      row.replaceWith(this.row(entry)); // the other rows stay: what ended this may be a press on one of them
    };
    field.addEventListener("blur", () => end(true));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        end(event.key === "Enter");
      }
    });
  }

  async remove(ids) {
    await forget(...ids);
    this.does.gone(ids);
    await this.read();
  }

  /** Asks once more before everything goes. */
  async clear() {
    const button = byId("history-clear");
    if (button.dataset.sure === undefined) {
      button.dataset.sure = "";
      button.textContent = "Delete all of them, for good?";
      setTimeout(() => {
        delete button.dataset.sure;
        button.textContent = "Delete all";
      }, 4000);
      return;
    }
    await this.remove(this.known.map(({ id }) => id));
  }
}

/** Give a stored conversation another title. */
export async function retitle(id, title) {
  const found = await load(id);
  if (!found) return;
  const words = (await titles()).find((entry) => entry.id === id)?.words ?? "";
  await store({ ...found, title }, words);
}
