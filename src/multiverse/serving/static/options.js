// How questions are asked: the fields below Options. Kept in this browser, so that a reload loses none.

import { byId } from "./dom.js";
import { place } from "./panel.js";

const STORED = "multiverse-options";
const NUMBERS = { "top-p": "top_p", "max-tokens": "max_tokens", seed: "seed", budget: "thinking_budget" };
const FIELDS = ["temperature", "mode", "system", "compare", ...Object.keys(NUMBERS)];

/** What a request says beside the question; fields that are empty are the server's to choose. */
export function options() {
  const chosen = { temperature: Number(byId("temperature").value || 0) };
  for (const [id, name] of Object.entries(NUMBERS)) if (byId(id).value !== "") chosen[name] = Number(byId(id).value);
  return chosen;
}

/** The instructions that end the question, one for each run. */
export function modes() {
  const first = byId("mode").value || "parallel";
  return byId("compare").checked && first !== "sequential" ? [first, "sequential"] : [first];
}

export function systemMessage() {
  return byId("system").value.trim();
}

/** A field that does not hold what it may; null if all do. */
export function invalidField() {
  return FIELDS.map(byId).find((field) => !field.checkValidity()) ?? null;
}

function keep() {
  const values = Object.fromEntries(FIELDS.map((id) => [id, byId(id).type === "checkbox" ? byId(id).checked : byId(id).value]));
  localStorage.setItem(STORED, JSON.stringify(values));
  mark();
}

/** The heading shows that something is set that one would not expect. */
function mark() {
  const set = FIELDS.filter((id) => id !== "compare" && byId(id).value !== byId(id).defaultValue && byId(id).value !== (id === "mode" ? "parallel" : ""));
  byId("options").toggleAttribute("data-set", set.length > 0);
}

/** At once: the event that a change of `open` brings comes later. */
export function openOptions() {
  byId("options").open = true;
  showPanel();
}

export function closeOptions() {
  byId("options").open = false;
}

export function restoreOptions() {
  let values = {};
  try {
    values = JSON.parse(localStorage.getItem(STORED) ?? "{}") ?? {};
  } catch {
    // written by something else
  }
  for (const id of FIELDS) {
    if (!(id in values)) continue;
    if (byId(id).type === "checkbox") byId(id).checked = values[id] === true;
    else byId(id).value = String(values[id]);
  }
  mark();
}

const panel = byId("options-panel");

function showPanel() {
  if (!panel.matches(":popover-open")) panel.showPopover();
  place(panel, byId("options").firstElementChild);
}

byId("options").addEventListener("toggle", () => {
  if (byId("options").open) showPanel();
  else if (panel.matches(":popover-open")) panel.hidePopover();
});
addEventListener("pointerdown", (event) => {
  if (byId("options").open && !byId("options").contains(event.target)) closeOptions();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !byId("options").open) return;
  closeOptions();
  byId("options").firstElementChild.focus();
});
addEventListener("resize", () => byId("options").open && place(panel, byId("options").firstElementChild));
for (const id of FIELDS) byId(id).addEventListener("change", keep);
byId("options-reset").addEventListener("click", () => {
  for (const id of FIELDS) {
    if (byId(id).type === "checkbox") byId(id).checked = false;
    else byId(id).value = id === "mode" ? "parallel" : byId(id).defaultValue;
  }
  keep();
});
