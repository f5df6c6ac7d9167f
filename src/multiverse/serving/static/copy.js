// Copying texts.

import { byId, el } from "./dom.js";

/** Put a text into the clipboard, and say so to those who listen. */
export async function copy(text, said = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers give no clipboard to pages without https, other than this machine's own.
    const area = el("textarea", { class: "hidden", readonly: "" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return false;
  }
  byId("status").textContent = said;
  return true;
}

/** A button that copies what `text` gives; it shows for a moment that it did. */
export function copyButton(text, label = "Copy", attributes = {}) {
  const button = el("button", { type: "button", class: "quiet", ...attributes }, label);
  button.addEventListener("click", async () => {
    const done = await copy(await text());
    button.textContent = done ? "Copied" : "Not allowed here";
    setTimeout(() => (button.textContent = label), 1600);
  });
  return button;
}
