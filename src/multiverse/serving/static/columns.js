// Moments as columns, for addresses: numbers as differences to the moment before, names as places in a list of names. A token
// then takes a tenth of what its moment takes. What the page does not show (ids, log-probabilities) is left out.

const NAMES = ["event", "branch", "parent", "role", "outline", "reason"];
const COUNTS = ["total", "critical_path", "branch", "steps"];
const OWN = new Set(["position", "branch"]); // numbers that go on from the branch's last
const REST = ["labels", "finish_reason", "usage", "structure_error", "answer", "model", "prompt_tokens"];
const TICKS = 1000; // of a second

function numbersOf(moment) {
  const tokens = COUNTS.map((name) => [name, moment.tokens?.[name]]);
  const ticks = moment.seconds === undefined ? undefined : Math.round(moment.seconds * TICKS);
  return [...tokens, ["position", moment.position], ["seconds", ticks]];
}

/** Where a number is counted from. */
const origin = (name, moment) => (OWN.has(name) ? `${name} ${moment.branch}` : name);

export function toColumns(moments) {
  const names = [];
  const columns = { names, texts: [], rest: [] };
  for (const name of [...NAMES, ...numbersOf({}).map(([name]) => `#${name}`)]) columns[name] = [];
  const last = {};
  for (const moment of moments) {
    for (const name of NAMES) {
      const value = moment[name] ?? null;
      if (value !== null && !names.includes(value)) names.push(value);
      columns[name].push(value === null ? -1 : names.indexOf(value));
    }
    for (const [name, value] of numbersOf(moment)) {
      const from = origin(name, moment);
      columns[`#${name}`].push(value == null ? null : value - (last[from] ?? 0));
      if (value != null) last[from] = value;
    }
    columns.texts.push(moment.text ?? null);
    const rest = REST.filter((name) => moment[name] !== undefined).map((name) => [name, moment[name]]);
    columns.rest.push(rest.length ? Object.fromEntries(rest) : 0);
  }
  return columns;
}

export function fromColumns(columns) {
  const last = {};
  return columns.texts.map((text, index) => {
    const moment = {};
    for (const name of NAMES) {
      const at = columns[name][index];
      if (at >= 0) moment[name] = columns.names[at];
    }
    moment.branch ??= "";
    if (text !== null) moment.text = text;
    const tokens = {};
    for (const [name] of numbersOf({})) {
      const difference = columns[`#${name}`][index];
      if (difference === null) continue;
      const from = origin(name, moment);
      const value = (last[from] = (last[from] ?? 0) + difference);
      if (COUNTS.includes(name)) tokens[name] = value;
      else moment[name] = name === "seconds" ? value / TICKS : value;
    }
    if (Object.keys(tokens).length) moment.tokens = tokens;
    return Object.assign(moment, columns.rest[index] || {});
  });
}
