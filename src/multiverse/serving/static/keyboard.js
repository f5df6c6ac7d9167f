// Keys. Those that mean something where they are pressed (in a text, on a button, in a dialog) keep that meaning.
// An action that returns false leaves the key to the browser.

const TYPING = "input:not([type=checkbox]), textarea, select";
const PRESSED = "button, a, summary, input, [role=button]";

export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    if (target.matches?.(TYPING) && event.key !== "Escape") return;
    if ((event.key === " " || event.key === "Enter") && target.matches?.(PRESSED)) return;
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action) return;
    if (action(event) !== false) event.preventDefault();
  });
}
