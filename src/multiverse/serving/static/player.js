// Time. A track is one run with all its moments so far; the player decides which of them have happened.
//
// Live, everything that has arrived has happened. In a replay the moments of all tracks happen by their own clocks, from the
// same zero, so that two runs that were made one after the other can be watched side by side.

import { Run } from "./model.js";

export const SPEEDS = [0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8];

export class Track {
  constructor(mode, measured = true) {
    this.mode = mode;
    this.measured = measured; // whether its seconds were measured, or made up for a document
    this.moments = [];
    this.times = []; // second of each moment: never before that of the moment before it
    this.run = new Run(mode);
    this.index = 0; // moments that have happened
    this.began = null; // when it was asked for, by the page's own clock
    this.done = false;
    this.generation = 0; // how often it was built anew; whoever draws it starts over too
    this.full = new Run(mode); // everything that has arrived, whatever is shown
  }

  add(moment) {
    const before = this.times.length ? this.times[this.times.length - 1] : 0;
    if (!this.measured) moment = { ...moment, seconds: PACE * (this.full.tokens.critical_path ?? 0) };
    this.moments.push(moment);
    this.times.push(Math.max(before, moment.seconds ?? before));
    this.full.feed(moment);
  }

  /** Nothing more will come; a run that was broken off gets an end. */
  close() {
    if (this.done) return;
    if (!this.full.finish && this.moments.length) this.add({ event: "finish", branch: "", finish_reason: "abort" });
    this.done = true;
  }

  get duration() {
    return this.times.length ? this.times[this.times.length - 1] : 0;
  }

  /** Make it so that exactly the first `count` moments have happened. */
  seek(count) {
    if (count < this.index) {
      this.run = new Run(this.mode);
      this.index = 0;
      this.generation++;
    }
    while (this.index < count) this.run.feed(this.moments[this.index++]);
  }

  /** How many moments have happened by this second. */
  countAt(time) {
    let low = 0;
    let high = this.times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle] <= time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Seconds that a step of a document takes, which was never timed. */
const PACE = 0.03;

export class Player extends EventTarget {
  constructor() {
    super();
    this.tracks = [];
    this.mode = "idle"; // idle, live, playing, paused
    this.time = 0;
    this.speed = 1;
    this.stamp = 0;
  }

  load(tracks, mode) {
    this.tracks = tracks;
    this.mode = mode;
    this.time = mode === "live" ? 0 : this.duration;
    this.show();
  }

  get duration() {
    return Math.max(0, ...this.tracks.map((track) => track.duration));
  }

  get atEnd() {
    return this.tracks.every((track) => track.index === track.moments.length);
  }

  /** Called once a frame. Returns whether there is more to come by itself. */
  tick(now) {
    const passed = Math.min(0.25, (now - this.stamp) / 1000);
    this.stamp = now;
    if (this.mode === "playing") {
      this.time += passed * this.speed;
      if (this.time >= this.duration) {
        this.time = this.duration;
        this.mode = this.tracks.every((track) => track.done) ? "paused" : "live";
      }
    }
    if (this.mode !== "idle") this.show();
    return this.mode === "playing" || this.mode === "live";
  }

  show() {
    for (const track of this.tracks) {
      track.seek(this.mode === "live" ? track.moments.length : track.countAt(this.time));
    }
    if (this.mode === "live") this.time = this.duration;
  }

  /** The stream is over. */
  finish() {
    if (this.mode !== "live") return;
    this.show();
    this.mode = "paused";
  }

  toggle() {
    if (this.mode === "playing" || this.mode === "live") this.mode = "paused";
    else if (!this.atEnd) this.mode = "playing";
    else if (this.tracks.some((track) => !track.done)) this.mode = "live";
    else if (this.tracks.length) {
      this.time = 0;
      this.mode = "playing";
    }
    this.stamp = performance.now();
  }

  pause() {
    if (this.mode === "playing" || this.mode === "live") this.mode = "paused";
  }

  seekTime(time) {
    this.pause();
    this.time = Math.min(this.duration, Math.max(0, time));
    this.show();
  }

  /** To where the longest chain of the first track is this long. */
  seekTokens(length) {
    const track = this.tracks[0];
    if (!track) return;
    let index = track.moments.findIndex((moment) => (moment.tokens?.critical_path ?? 0) > length);
    if (index < 0) index = track.moments.length - 1;
    this.pause();
    this.time = index > 0 ? track.times[index - 1] : 0;
    if (index === track.moments.length - 1) this.time = this.duration;
    this.show();
  }

  /** So many steps on or back; a step is a stretch of time in which something happens. */
  step(count) {
    this.pause();
    const times = [...new Set(this.tracks.flatMap((track) => track.times))].sort((a, b) => a - b);
    let at = times.findIndex((time) => time > this.time + 1e-9) - 1;
    if (at < -1) at = times.length - 1;
    this.time = times[Math.min(times.length - 1, Math.max(0, at + count))] ?? 0;
    this.show();
  }

  /** The speed at which a run this long takes some eight seconds to watch. */
  get comfortable() {
    const wanted = this.duration / 8;
    let best = SPEEDS[0];
    for (const speed of SPEEDS) if (speed <= 1 && speed <= wanted) best = speed;
    return this.duration >= 6 ? 1 : best;
  }
}
