// What is shown of one question: its runs as trees, the time line below them, and the clock that drives both.

import { byId, el } from "./dom.js";
import { Player, SPEEDS } from "./player.js";
import { Reader } from "./reader.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";
import { NAMES, number, parallelism, seconds, steps, times } from "./words.js";

export const player = new Player();
const reader = new Reader(player);
const timeline = new Timeline(byId("chart"), (value, axis) => {
  if (axis === "tokens") player.seekTokens(value);
  else player.seekTime(value);
  wake();
});

const MOVES = ["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Tab"]; // keys that scroll, by themselves or to what they focus

let stages = [];
let chosenSpeed = false;
let following = false; // keep what is being written in view
let changed = () => {}; // called when more is shown than before
let told = ""; // what those who listen have heard last

/** @param {() => void} callback called in a frame that has changed what is shown */
export function onChange(callback) {
  changed = callback;
}

export function show(tracks, mode) {
  player.load(tracks, mode);
  stages = tracks.map((track) => new Stage(track, (lane) => reader.open(track, lane)));
  byId("stage").replaceChildren(...stages.map((stage) => stage.el));
  byId("stage").dataset.runs = String(tracks.length);
  timeline.load(tracks);
  byId("time").hidden = false;
  byId("save").disabled = byId("link").disabled = false;
  byId("run-tabs").hidden = tracks.length < 2;
  byId("run-tabs").replaceChildren(
    ...tracks.map((track, index) => {
      const tab = el("button", { type: "button" }, NAMES[track.mode] ?? track.mode, " ", el("span", { class: "clock" }));
      tab.addEventListener("click", () => showRun(index));
      return tab;
    }),
  );
  showRun(0);
  told = "";
  if (!chosenSpeed) player.speed = 1;
  wake();
}

/** Show nothing. */
export function clear() {
  player.load([], "idle");
  stages = [];
  following = false;
  timeline.load([]);
  byId("stage").replaceChildren();
  byId("run-tabs").hidden = true;
  byId("time").hidden = true;
  byId("save").disabled = byId("link").disabled = true;
  wake();
}

/** Whether to keep what is being written in view. */
export function setFollowing(value) {
  following = value;
}

/** Where there is no room for two runs side by side, one is shown. */
function showRun(index) {
  byId("stage").dataset.shown = String(index);
  stages.forEach((stage, number) => stage.el.toggleAttribute("data-shown", number === index));
  [...byId("run-tabs").children].forEach((tab, number) => tab.setAttribute("aria-pressed", String(number === index)));
}

// ---- frames

let awake = false;
let restless = 0; // until when things may still move

/** Draw in the next frame, and go on as long as something moves. */
export function wake() {
  if (awake) return;
  awake = true;
  player.stamp = performance.now();
  requestAnimationFrame(frame);
}

/** Sizes settle later than what has changed them: go on drawing for a moment. */
export function unsettle() {
  restless = performance.now() + 200;
  wake();
}

function frame(now) {
  awake = player.tick(now);
  let more = false;
  for (const stage of stages) more = stage.draw() || more;
  const clocks = player.tracks.map(clockOf);
  timeline.draw(clocks);
  stages.forEach((stage, index) => headRun(stage, index, clocks[index]));
  controls();
  changed();
  if (more) {
    announce();
    restless = now + 200;
  }
  if (following && now < restless) follow();
  awake ||= now < restless;
  reader.draw();
  if (awake) requestAnimationFrame(frame);
}

function headRun(stage, index, clock) {
  const { run, track } = stage;
  const { total, critical_path } = run.tokens;
  const facts = total ? `${number(total)} tokens, longest chain ${number(critical_path)} in ${steps(run.tokens)} steps` : "";
  stage.tell(NAMES[track.mode] ?? track.mode, clock, track.began === null ? "runs when the other is done" : facts);
  const tab = byId("run-tabs").children[index]?.lastElementChild;
  if (tab) tab.textContent = seconds(clock);
}

/** Seconds of a run at the moment shown: while it runs, those of the clock on the wall. */
function clockOf(track) {
  if (player.mode !== "live") return Math.min(player.time, track.duration);
  if (track.done || !track.began) return track.duration;
  return Math.max(track.duration, (performance.now() - track.began) / 1000);
}

function controls() {
  const playing = player.mode === "playing" || player.mode === "live";
  const play = byId("play");
  play.dataset.state = playing ? "playing" : "paused";
  play.setAttribute("aria-label", playing ? "Pause" : player.atEnd ? "Replay" : "Play");
  byId("speed").value = String(player.speed);
  const share = player.duration ? Math.round((100 * player.time) / player.duration) : 100;
  byId("chart").setAttribute("aria-valuenow", String(share));
  byId("chart").setAttribute("aria-valuetext", `${seconds(player.time)}, ${player.tracks[0]?.run.tokens.total ?? 0} tokens`);
  byId("saving").textContent = verdict();
  document.body.dataset.player = player.mode;
}

/** What came of it, in one line. */
function verdict() {
  const [first, second] = player.tracks;
  if (!first?.done || !first.full.finish) return "";
  if (second?.done && second.full.finish?.finish_reason === "stop" && first.measured) {
    const ratio = second.duration / first.duration;
    return ratio >= 1
      ? `${seconds(first.duration)} in parallel, ${seconds(second.duration)} in a line: ${times(ratio)} as fast`
      : `${seconds(first.duration)} in parallel, ${seconds(second.duration)} in a line: sequential was ${times(1 / ratio)} as fast`;
  }
  if (second) return "";
  const { tokens } = first.full;
  if (!first.full.forks) return "Nothing was forked.";
  return `${number(tokens.total)} tokens in ${steps(tokens)} steps: ${times(parallelism(tokens))} parallel`;
}

/** For those who listen: forks, joins and the answer of the first run. */
function announce() {
  const run = player.tracks[0]?.run;
  if (!run) return;
  const moment = run.last;
  let text = told;
  const answer = run.forkedAnswer ? run.finish?.answer : run.shownAnswer;
  if (run.finish) text = answer ? `Answer: ${answer}` : "Over.";
  else if (moment?.event === "fork") text = `Forked into ${moment.labels.length} branches${moment.branch ? ` in ${moment.branch}` : ""}.`;
  else if (moment?.event === "join") text = `Joined ${moment.labels.length} branches.`;
  if (text !== told) byId("status").textContent = told = text;
}

/** Keep the block that is being written, or else the end, in view. */
function follow() {
  const stage = stages[Number(byId("stage").dataset.shown)] ?? stages[0];
  if (!stage) return;
  const live = stages.find((one) => one.track.began && !one.run.finish) ?? stage;
  const all = byId("stage").closest(".turn") ?? byId("stage");
  const tree = stages.every((one) => one.run.finish) ? all : live.tree;
  const top = document.querySelector(".top").getBoundingClientRect().bottom;
  const bottom = byId("dock").getBoundingClientRect().top - 24;
  const blocks = tree.querySelectorAll(":scope > .trunk > .block");
  const block = live.run.trunk.stage === "waiting" && !live.run.finish ? blocks[blocks.length - 1] : null;
  const box = (block ?? tree).getBoundingClientRect();
  let by = box.bottom > bottom ? box.bottom - bottom : 0;
  if (block) by = Math.min(by, box.top - top);
  if (by > 1) scrollBy({ top: by, behavior: "instant" });
}

// Whoever scrolls or presses something looks at it, and it has to stay: a page that moves between the press and the release takes
// the click from what was pressed, or the end of a selection. The time line stands still by itself.
for (const kind of ["wheel", "touchmove"]) addEventListener(kind, () => (following = false), { passive: true });
addEventListener("pointerdown", (event) => (following &&= event.target.closest?.("#dock") != null), { capture: true });
addEventListener("keydown", (event) => (following &&= !MOVES.includes(event.key)), { capture: true });

// ---- what the controls do

export function replay() {
  if (!player.tracks.length) return false;
  if (!chosenSpeed && player.atEnd) player.speed = player.comfortable;
  following = player.mode === "paused";
  player.toggle();
  wake();
  return true;
}

export function setSpeed(speed) {
  player.speed = speed;
  chosenSpeed = true;
  wake();
}

export function faster(by) {
  const at = SPEEDS.indexOf(player.speed) + by;
  setSpeed(SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, at))]);
}

export function setAxis(axis) {
  timeline.axis = axis;
  for (const name of ["tokens", "seconds"]) byId(`axis-${name}`).setAttribute("aria-pressed", String(name === axis));
  wake();
}

export function otherAxis() {
  setAxis(timeline.axis === "tokens" ? "seconds" : "tokens");
}

export function fold() {
  const folded = byId("dock").toggleAttribute("data-folded");
  byId("fold").setAttribute("aria-expanded", String(!folded));
}

/** Focus the next branch, or the one before. */
export function moveLane(by) {
  const heads = [...document.querySelectorAll(".run .head")].filter((head) => head.offsetParent !== null);
  if (!heads.length) return;
  following = false;
  const at = heads.indexOf(document.activeElement);
  const to = heads[at < 0 ? (by > 0 ? 0 : heads.length - 1) : (at + by + heads.length) % heads.length];
  to.focus();
  to.scrollIntoView({ block: "nearest" });
}

export function step(count) {
  if (!player.tracks.length) return false;
  player.step(count);
  wake();
  return true;
}

export function toEdge(time) {
  if (!player.tracks.length) return false;
  player.seekTime(time);
  wake();
  return true;
}
