// The conversation: asking, asking again, and which of its turns is open. What is stored of it: conversation.js and store.js.

import { unlike } from "./about.js";
import { ask } from "./api.js";
import { add, chosen, messages, newConversation, path, remove } from "./conversation.js";
import { byId } from "./dom.js";
import { closeOptions, modes, options, systemMessage } from "./options.js";
import { Track } from "./player.js";
import * as scene from "./scene.js";
import { load, store } from "./store.js";
import { Turn } from "./turn.js";

const EVERY = 2000; // milliseconds between two savings of what is being written

export class Chat {
  /**
   * @param {object} page what the rest of the page does: `model()` gives the model to ask, `explain(error, again)` says what
   *     went wrong, `notice(text, button, kind)` says something, `arrange()` follows what is shown
   */
  constructor(page) {
    this.page = page;
    this.turns = new Map(); // of an exchange, its turn
    this.controller = null; // of the request that runs
    this.window = 0; // tokens that the model can see
    this.restart(newConversation());
  }

  restart(conversation) {
    this.controller?.abort();
    this.controller = null;
    this.conversation = conversation;
    this.turns.clear();
    this.shown = null; // the exchange whose tree is shown
    this.park();
    byId("turns").replaceChildren();
  }

  /** Take the tree out of the turn that it stands in, which may go. */
  park() {
    byId("viewer").append(byId("run-tabs"), byId("stage"));
  }

  get path() {
    return path(this.conversation);
  }

  get empty() {
    return !this.path.length;
  }

  /** What is shown, and what can be saved of it. */
  get exchanges() {
    return this.path.map(chosen);
  }

  get last() {
    return this.turns.get(this.exchanges[this.exchanges.length - 1]);
  }

  // ---- what is shown

  /** Put the turns of the path in their order, and open one. */
  draw(open = this.exchanges[this.exchanges.length - 1], mode = "paused") {
    const turns = this.path.map((slot, index) => {
      const turn = this.turnOf(chosen(slot), index);
      turn.number(slot.at, slot.versions.length);
      return turn;
    });
    this.park();
    byId("turns").replaceChildren(...turns.map((turn) => turn.el));
    this.shown = open ?? null;
    for (const turn of turns) {
      if (turn.exchange !== open) turn.close();
    }
    if (open) {
      const turn = this.turns.get(open);
      turn.open(byId("run-tabs"), byId("stage"));
      scene.show((turn.tracks ??= open.runs.map(trackOf)), mode);
    } else scene.clear();
    this.page.arrange();
  }

  /** Bring the last turn to the top; a single one is there already. */
  toLast() {
    if (this.path.length > 1) this.last.el.scrollIntoView({ block: "start" });
    else scrollTo(0, 0);
  }

  turnOf(exchange, index) {
    if (!this.turns.has(exchange)) {
      const turn = new Turn(exchange, {
        open: () => this.open(exchange),
        edit: (text) => this.ask(text, this.indexOf(exchange)),
        again: () => this.ask(exchange.question, this.indexOf(exchange)),
        version: (by) => this.changeVersion(this.indexOf(exchange), by),
      });
      turn.el.setAttribute("aria-label", `Turn ${index + 1}`);
      this.turns.set(exchange, turn);
    }
    return this.turns.get(exchange);
  }

  indexOf(exchange) {
    return this.exchanges.indexOf(exchange);
  }

  /** Show how an earlier answer was written. */
  open(exchange) {
    if (this.controller) return; // what is being written stays in view
    const before = this.turns.get(exchange).el.getBoundingClientRect().top;
    this.draw(exchange);
    scrollBy({ top: this.turns.get(exchange).el.getBoundingClientRect().top - before, behavior: "instant" });
  }

  changeVersion(index, by) {
    if (this.controller) return;
    const slot = this.path[index];
    slot.at = Math.min(slot.versions.length - 1, Math.max(0, slot.at + by));
    this.draw(chosen(slot));
    this.save();
  }

  /** Figures of the turn that is shown. */
  tell() {
    const turn = this.turns.get(this.shown);
    if (turn?.tracks?.[0]) turn.tell(turn.tracks[0].full, this.window);
  }

  // ---- asking

  stop() {
    this.controller?.abort();
  }

  /** Ask at this point: at the end, or, edited or again, where something was asked before. Resolves when the answer is over. */
  async ask(question, index = this.path.length) {
    if (this.controller) return;
    closeOptions();
    this.page.notice("");
    const { conversation, shown } = this;
    const before = this.path[index]?.at ?? -1;
    const tracks = modes().map((mode) => new Track(mode));
    const runs = tracks.map(({ mode, moments }) => ({ mode, moments }));
    const earlier = messages(conversation, index, systemMessage());
    const exchange = add(conversation, index, { question, runs, asked: Date.now() });
    const slot = this.path[index];
    const controller = (this.controller = new AbortController());
    this.turnOf(exchange, index).tracks = tracks;
    this.draw(exchange, "live");
    scene.setFollowing(true);
    if (index > 0) this.turns.get(exchange).el.scrollIntoView({ block: "start" });
    const saving = setInterval(() => this.save(conversation), EVERY);
    let failure = null;
    try {
      exchange.model = await this.page.model(controller.signal);
      this.warn(question, exchange, controller.signal);
      for (const track of tracks) await this.listen(track, exchange, [...earlier, { role: "user", content: question }], controller.signal);
    } catch (error) {
      failure = error;
    }
    clearInterval(saving);
    for (const track of tracks) track.close();
    exchange.runs = exchange.runs.filter((run) => run.moments.length);
    if (this.controller === controller) this.controller = null;
    if (conversation === this.conversation) this.end(slot, exchange, before, shown);
    else if (!exchange.runs.length) remove(slot, exchange, before);
    await this.save(conversation);
    if (failure) this.page.explain(failure, question, () => this.ask(question, Math.min(index, this.path.length)), !exchange.runs.length);
  }

  /** The answer is over. Where none has come, what was shown before is shown again. */
  end(slot, exchange, before, shown) {
    if (!exchange.runs.length) {
      remove(slot, exchange, before);
      this.turns.delete(exchange);
      this.draw(this.exchanges.includes(shown) ? shown : undefined);
      return;
    }
    const turn = this.turns.get(exchange);
    if (exchange.runs.length < turn.tracks.length) {
      turn.tracks = turn.tracks.filter((track) => track.moments.length);
      this.draw(exchange);
    }
    scene.player.finish();
    scene.wake();
  }

  /** One run after the other: each has the machine to itself, so their clocks can be compared. */
  async listen(track, exchange, said, signal) {
    track.began = performance.now();
    const reply = { content: "", reasoning: "" };
    const request = { messages: said, model: exchange.model, mode: track.mode, options: options(), signal };
    for await (const moment of ask(request, reply)) {
      track.add(moment);
      exchange.first ??= moment.event === "token" ? (performance.now() - track.began) / 1000 : undefined;
      if (moment.model) exchange.model = moment.model;
      scene.wake();
    }
    track.close();
    exchange.replies.push(replyOf(track, reply));
  }

  /** Say so if the question is unlike those that the model was trained on. The answer does not wait for it. */
  async warn(question, exchange, signal) {
    const said = await unlike(question, exchange.model, signal);
    if (said && byId("notice").hidden) this.page.notice(said, undefined, "note");
  }

  // ---- keeping

  /** Store the conversation; where the browser keeps nothing (a private window, no room) the page goes on without. */
  async save(conversation = this.conversation) {
    if (!path(conversation).length) return;
    conversation.updated = Date.now();
    const words = path(conversation).map((slot) => chosen(slot).question).join("\n").slice(0, 4000);
    try {
      await store(conversation, words);
    } catch (error) {
      console.warn("This conversation is not kept:", error);
    }
    if (conversation === this.conversation) this.page.remember(conversation.id);
  }

  /** Show a conversation of the history. Resolves to whether there was one. */
  async restore(id) {
    const found = await load(id).catch(() => null);
    if (!found) return false;
    this.restart(found);
    this.draw();
    this.toLast();
    return true;
  }

  /** Begin anew; what there is stays in the history. */
  begin() {
    this.restart(newConversation());
    this.draw();
    this.page.remember(null);
  }

  /** Show turns that come from a file or an address. */
  take(turns) {
    const conversation = newConversation();
    turns.forEach((turn, index) => add(conversation, index, turn));
    this.restart(conversation);
    this.draw();
    this.toLast();
    this.save();
  }
}

/** A stored run as a track. */
export function trackOf({ mode, moments }) {
  const track = new Track(mode, moments.some((moment) => moment.seconds > 0));
  track.began = 0;
  for (const moment of moments) track.add(moment);
  track.close();
  return track;
}

/** An answer as the next question will send it; one that was broken off goes without its thinking, which may be open. */
function replyOf(track, { content, reasoning, whole }) {
  const { finish } = track.full;
  if (!finish || finish.structure_error || finish.finish_reason === "abort") return { content: "", reasoning: "" };
  return { content: (whole ?? content) || finish.answer || "", reasoning };
}
