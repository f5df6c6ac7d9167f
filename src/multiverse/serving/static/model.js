// A generation as a tree, built from its moments. Knows nothing of the page.
//
// A run is a trunk; a lane holds texts and blocks in order; a block holds lanes, then a conclusion. Every change marks what it
// touched, so that the page redraws only that.

const GOLDEN = [262, 162, 52, 340, 215, 112, 25, 300];

export class Text {
  constructor(role = "text") {
    this.role = role;
    this.text = "";
  }
}

export class Block {
  constructor(lane) {
    this.lane = lane;
    this.lanes = [];
    this.conclusion = new Text("conclusion");
    this.forked = false;
    this.joined = false;
  }

  get stage() {
    return this.joined ? "joined" : this.forked ? "running" : "planned";
  }
}

export class Lane {
  constructor(label, parent, hue, id) {
    this.id = id; // number in the order of appearance: the same however far a run has come
    this.label = label;
    this.parent = parent;
    this.hue = hue;
    this.depth = parent ? parent.depth + 1 : 0;
    this.title = "";
    this.items = [];
    this.stage = parent ? "planned" : "running"; // planned, running, waiting, ended
    this.reason = null;
    this.tokens = 0;
    // Stretches in which it was written: positions from the start of the generation, and seconds.
    this.spans = [];
    this.parts = []; // everything as written: strings, and arrays of lanes
    this.open = false; // whether the last span goes on
    this.since = 0; // second at which it could begin or go on
  }

  get block() {
    for (let i = this.items.length - 1; i >= 0; i--) if (this.items[i] instanceof Block) return this.items[i];
    return null;
  }

  write(text, role = "text") {
    let last = this.items[this.items.length - 1];
    if (!(last instanceof Text) || last.role !== role) {
      if (!text) return null;
      last = new Text(role);
      this.items.push(last);
    }
    last.text += text;
    return last;
  }
}

/** Hues of siblings: far apart at the top, shades of their parent further down. */
function hueOf(parent, index) {
  if (!parent.parent) {
    const round = Math.floor(index / GOLDEN.length);
    return (GOLDEN[index % GOLDEN.length] + round * 23) % 360;
  }
  const step = [0, 26, -26, 50, -50, 74, -74][index % 7];
  return (parent.hue + step + 360) % 360;
}

export class Run {
  /** @param {string} mode parallel, sequential, or document */
  constructor(mode) {
    this.mode = mode;
    this.reset();
  }

  /** Back to before the first moment. */
  reset() {
    this.trunk = new Lane("", null, null, 0);
    this.lanes = new Map([["", this.trunk]]);
    this.answer = new Text("answer"); // one that forks is a part of the trunk instead
    this.forkedAnswer = false;
    this.known = 0; // lanes so far
    this.tokens = { total: 0, critical_path: 0, steps: 0 };
    this.seconds = 0;
    this.forks = 0;
    this.origin = null;
    this.finish = null;
    this.error = null;
    this.dirty = new Set([this.trunk]);
    this.last = null;
  }

  /** The branches that are being written. */
  get running() {
    let count = 0;
    for (const lane of this.lanes.values()) if (lane.stage === "running") count++;
    return count;
  }

  feed(moment) {
    this.last = moment;
    if (moment.tokens) {
      const { total, critical_path, steps } = moment.tokens;
      this.tokens = { total, critical_path, steps };
    }
    if (moment.seconds !== undefined) this.seconds = moment.seconds;
    const lane = this.lanes.get(moment.branch ?? "");
    if (!lane) return; // a branch that nothing announced: nothing to draw it in
    if (moment.tokens && moment.event !== "finish") lane.tokens = moment.tokens.branch;
    this.dirty.add(lane);
    switch (moment.event) {
      case "goal":
        if (moment.role === "answer") this.forkAnswer(lane);
        lane.items.push(new Block(lane));
        break;
      case "token":
        this.token(lane, moment);
        break;
      case "fork":
        this.fork(lane, moment.labels);
        break;
      case "branch_end":
        lane.stage = "ended";
        lane.reason = moment.reason;
        lane.open = false;
        break;
      case "join": {
        const block = lane.block;
        if (block) {
          block.joined = true;
          for (const child of block.lanes) this.dirty.add(child);
        }
        lane.stage = "running";
        lane.since = this.seconds;
        break;
      }
      case "finish":
        this.end(moment);
        break;
    }
  }

  /** The run is over: by its finish, or because nothing more will come. */
  end(moment) {
    this.finish = moment;
    for (const lane of this.lanes.values()) {
      if (lane.stage === "running" || lane.stage === "waiting") lane.stage = "ended";
      lane.open = false;
      this.dirty.add(lane);
    }
    if (moment.usage) {
      const { total_tokens, critical_path_tokens, critical_path_steps } = moment.usage;
      this.tokens = { total: total_tokens, critical_path: critical_path_tokens, steps: critical_path_steps };
      if (moment.seconds === undefined) this.seconds = moment.usage.seconds ?? this.seconds;
    }
  }

  token(lane, moment) {
    if (moment.position !== undefined) this.stretch(lane, moment.position);
    const text = moment.text ?? "";
    if (text) lane.parts.push(text);
    switch (moment.role) {
      case "text":
        lane.write(text);
        break;
      case "answer":
        if (this.forkedAnswer) lane.write(text, "answer");
        else this.answer.text += text;
        break;
      case "conclusion":
        if (lane.block) lane.block.conclusion.text += text;
        else lane.write(text);
        break;
      case "outline": {
        const planned = this.planned(lane, moment.outline);
        planned.title += text;
        this.dirty.add(planned);
        break;
      }
    }
  }

  /** The answer turns out to fork: what there is of it goes to the trunk, where its blocks stand. */
  forkAnswer(lane) {
    this.forkedAnswer = true;
    if (this.answer.text.trim()) lane.write(this.answer.text, "answer");
    this.answer.text = "";
  }

  stretch(lane, position) {
    this.origin ??= position;
    const at = position - this.origin;
    let span = lane.open ? lane.spans[lane.spans.length - 1] : null;
    if (!span) {
      // It begins with the fork or the join, not with its first token.
      span = { from: at, to: at, begin: lane.since, end: this.seconds };
      lane.spans.push(span);
      lane.open = true;
    }
    span.to = Math.max(span.to, at + 1);
    span.end = this.seconds;
  }

  planned(lane, label) {
    let block = lane.block;
    if (!block || block.forked) {
      block = new Block(lane);
      lane.items.push(block);
    }
    let child = block.lanes.find((other) => other.label === label);
    if (!child) {
      child = new Lane(label, lane, hueOf(lane, block.lanes.length), ++this.known);
      block.lanes.push(child);
    }
    return child;
  }

  fork(lane, labels) {
    const children = labels.map((label) => this.planned(lane, label));
    const block = lane.block;
    block.forked = true;
    this.forks++;
    lane.stage = "waiting";
    lane.open = false;
    lane.parts.push(children);
    for (const child of children) {
      child.stage = "running";
      child.since = this.seconds;
      this.lanes.set(child.label, child);
      this.dirty.add(child);
    }
  }

  /** Everything written, tags included, in the order of the document. */
  get text() {
    const walk = (lane) => lane.parts.map((part) => (typeof part === "string" ? part : part.map(walk).join(""))).join("");
    return walk(this.trunk);
  }

  /** What stands after the thinking, without the heading that models put before it. */
  get shownAnswer() {
    const text = this.answer.text.trim();
    if ("Answer:".startsWith(text)) return "";
    return text.replace(/^Answer:\s*/, "");
  }
}

/** All lanes of a run in the order of the document, those of earlier blocks included; the trunk is not among them. */
export function everyLane(lane) {
  const found = [];
  for (const item of lane.items) {
    if (item instanceof Block) for (const child of item.lanes) found.push(child, ...everyLane(child));
  }
  return found;
}
