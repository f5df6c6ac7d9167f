// Panels that open beside a button. They lie above everything else of the page (`popover`), so that nothing sticky covers them.

const EDGE = 8;
const ENOUGH = 260; // pixels in which a panel can be used, if need be by scrolling

/** Put a panel below a button, or above it where there is no room; it scrolls where there is not enough. */
export function place(panel, button) {
  const at = button.getBoundingClientRect();
  panel.style.maxHeight = "";
  const { width, height } = panel.getBoundingClientRect();
  const below = innerHeight - at.bottom - 2 * EDGE;
  const above = at.top - 2 * EDGE;
  const up = height > below && below < ENOUGH && above > below;
  const tall = Math.min(height, above);
  panel.style.maxHeight = `${up ? above : below}px`;
  panel.style.top = `${up ? at.top - tall - EDGE : at.bottom + EDGE}px`;
  panel.style.left = `${Math.max(EDGE, Math.min(at.left - 12, innerWidth - width - EDGE))}px`;
}
