// What does not come from asking: files, addresses that hold a conversation, structured documents.

import { ApiError, parse } from "./api.js";
import { byId } from "./dom.js";
import { unpack, unpackLink } from "./recording.js";
import * as scene from "./scene.js";
import { Track } from "./player.js";

const LARGEST = 512 << 20; // bytes of a file

/** @param {object} page see `Chat`; also `chat`, and `askKey(message)` */
export class Files {
  constructor(page) {
    this.page = page;
    this.document = null; // the track of a document that is shown, in place of the conversation
  }

  async showDocument() {
    const problem = byId("source-problem");
    problem.hidden = true;
    const text = byId("source").value;
    if (!text.trim()) {
      byId("source").focus();
      return;
    }
    try {
      this.draw(documentTrack(await parse(text, byId("dialect").value)));
    } catch (error) {
      if (error.status === 401) {
        this.page.askKey(error.message);
        return;
      }
      if (!(error instanceof ApiError)) throw error;
      problem.textContent = error.message;
      problem.hidden = false;
      const line = Number(/line (\d+)/.exec(error.message)?.[1] ?? 0);
      if (line) selectLine(byId("source"), line);
    }
  }

  /** Show a document in the place of the conversation, which comes back when one returns to it. */
  draw(track) {
    this.page.chat.stop();
    this.document = track;
    this.page.chat.park();
    scene.setFollowing(false);
    scene.show([track], "paused");
    this.page.notice("");
    this.page.arrange();
  }

  /** Back to the conversation. */
  leave() {
    if (!this.document) return;
    this.document = null;
    this.page.chat.draw();
  }

  async open(file) {
    if (file.size > LARGEST) {
      this.page.notice(`${file.name} is too large to be a generation.`);
      return;
    }
    const text = await file.text();
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      location.hash = "#document";
      byId("source").value = text;
      await this.showDocument();
      return;
    }
    try {
      await this.take(unpack(value));
    } catch (error) {
      this.page.notice(`${file.name}: ${error.message}`);
    }
  }

  /** A conversation that is in the address; it goes from there once it is opened. */
  async openLink() {
    const packed = location.hash.slice("#sample=".length);
    history.replaceState(history.state, "", "#ask");
    let turns;
    try {
      turns = await unpackLink(packed);
    } catch {
      this.page.notice("This address holds no sample that can be read. Was it cut short? Open the sample's file instead.");
      return;
    }
    await this.take(turns);
  }

  async take(turns) {
    for (const turn of turns) {
      for (const run of turn.runs) {
        if (!run.moments && !(await this.parseRun(run))) return;
      }
    }
    location.hash = "#ask";
    this.document = null;
    scene.setFollowing(false);
    this.page.chat.take(turns);
    const note = turns[turns.length - 1].note;
    if (note) this.page.notice(note, undefined, "note");
  }

  /** Parse a run that holds only a text. If that fails, the text is shown with its fault. */
  async parseRun(run) {
    try {
      run.moments = await parse(run.text, run.dialect);
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      location.hash = "#document";
      byId("source").value = run.text;
      byId("dialect").value = run.dialect;
      await this.showDocument();
      return false;
    }
  }
}

/** A parsed document as a track that was never timed. */
function documentTrack(moments) {
  const track = new Track("document", false);
  track.began = 0;
  for (const moment of moments) track.add(moment);
  track.close();
  return track;
}

function selectLine(area, line) {
  const before = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  const end = area.value.indexOf("\n", before);
  area.focus();
  area.setSelectionRange(before, end < 0 ? area.value.length : end);
}
