// A conversation as plain data, as it is stored: knows nothing of the page.
//
//     conversation = {id, title, created, updated, start: slot}
//     slot         = {at, versions: [exchange]}        what was asked at this point, once or, edited or again, several times
//     exchange     = {question, model, note, runs: [{mode, moments}], replies: [{content, reasoning}], next: slot}
//
// What is shown is the path along the chosen version of each slot.

export function newConversation() {
  const now = Date.now();
  return { id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, title: "", created: now, updated: now, start: newSlot() };
}

function newSlot() {
  return { at: -1, versions: [] };
}

/** The slots with an exchange, from the first to the last one that is shown. */
export function path(conversation) {
  const found = [];
  for (let slot = conversation.start; slot?.versions.length; slot = chosen(slot).next) found.push(slot);
  return found;
}

export function chosen(slot) {
  return slot.versions[slot.at];
}

/** Ask at this point, counted from the first; where something was asked already it becomes another version. */
export function add(conversation, index, exchange) {
  const slots = path(conversation);
  const slot = slots[index] ?? (index === 0 ? conversation.start : chosen(slots[index - 1]).next);
  slot.versions.push({ note: "", model: "", runs: [], replies: [], next: newSlot(), ...exchange });
  slot.at = slot.versions.length - 1;
  if (!conversation.title) conversation.title = titleOf(exchange.question);
  return chosen(slot);
}

/** Take an exchange out again; the version that was chosen before it is shown. */
export function remove(slot, exchange, before) {
  slot.versions = slot.versions.filter((other) => other !== exchange);
  slot.at = Math.min(before, slot.versions.length - 1);
}

function titleOf(question) {
  const line = question.trim().replace(/\s+/g, " ");
  return line.length > 80 ? `${line.slice(0, 79).trimEnd()}…` : line || "Opened from a file";
}

/** The messages that ask the question at this point. Turns that were broken off before they said anything are left out. */
export function messages(conversation, index, system) {
  const earlier = path(conversation)
    .slice(0, index)
    .map(chosen)
    .flatMap(({ question, replies }) => {
      const reply = replies[0];
      if (!question || !reply?.content) return [];
      const reasoning = reply.reasoning ? { reasoning: reply.reasoning } : {};
      return [{ role: "user", content: question }, { role: "assistant", content: reply.content, ...reasoning }];
    });
  return [...(system ? [{ role: "system", content: system }] : []), ...earlier];
}
