// Light, dark, or as the system has it.

const STORED = "multiverse-theme";
const THEMES = ["system", "light", "dark"];

function current() {
  const stored = localStorage.getItem(STORED);
  return THEMES.includes(stored) ? stored : "system";
}

export function showTheme() {
  const theme = current();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.setAttribute("aria-label", `Theme: ${theme}`);
  button.title = `Theme: ${theme} (T)`;
}

export function nextTheme() {
  localStorage.setItem(STORED, THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]);
  showTheme();
}
