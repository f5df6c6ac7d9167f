// What the model says of itself, and of questions that are not for it.

import { ApiError, familiarity } from "./api.js";
import { byId, el } from "./dom.js";

let about = null;

/** Show it below the question; the example can be asked. */
export function showAbout(found, ask) {
  about = found;
  const box = byId("about");
  box.hidden = !about;
  box.replaceChildren(about?.text ?? "");
  if (about?.example) {
    const example = el("button", { type: "button", title: "Ask this" }, about.example);
    example.addEventListener("click", () => ask(about.example));
    box.append(el("span", { class: "example" }, " For example: ", example));
  }
  if (about?.otherwise) box.append(` ${about.otherwise}`);
}

/** What to tell the person who asks this; null if there is nothing to say. The answer does not wait for it. */
export async function unlike(question, model, signal) {
  if (about?.least_logprob == null) return null;
  try {
    const { notice } = await familiarity(question, model, signal);
    return signal.aborted ? null : notice;
  } catch (error) {
    // What is wrong with the server, the answer says.
    if (error instanceof ApiError || error.name === "AbortError") return null;
    throw error;
  }
}
