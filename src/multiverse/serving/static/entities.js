// Character references such as &lt; in texts.

const known = new Map([["&amp;", "&"], ["&lt;", "<"], ["&gt;", ">"], ["&quot;", '"'], ["&#39;", "'"], ["&nbsp;", "\u00a0"]]);

/** The text with its character references as characters. */
export function entity(text) {
  return text.replace(/&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][\da-z]{1,30});/gi, (found) => {
    if (!known.has(found)) {
      // The browser knows all two thousand of them. Nothing but a name of letters and digits reaches it.
      if (known.size > 1000) return found;
      known.set(found, new DOMParser().parseFromString(found, "text/html").documentElement.textContent);
    }
    return known.get(found);
  });
}
