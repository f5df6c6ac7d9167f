// The page: what the parts do together.

import { showAbout, unlike } from "./about.js";
import { ApiError, ask, key, models, parse, setKey } from "./api.js";
import { byId, el } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { listen } from "./keyboard.js";
import { Player, SPEEDS, Track } from "./player.js";
import { Reader } from "./reader.js";
import { download, pack, unpack, unpackLink } from "./recording.js";
import { Stage } from "./stage.js";
import { nextTheme, showTheme } from "./theme.js";
import { Timeline } from "./timeline.js";
import { NAMES, number, parallelism, seconds, steps, times } from "./words.js";

const player = new Player();
const reader = new Reader(player);
const timeline = new Timeline(byId("chart"), (value, axis) => {
  if (axis === "tokens") player.seekTokens(value);
  else player.seekTime(value);
  wake();
});

let stages = [];
let question = "";
let model = "";
let served = ""; // the model that this server offers
let controller = null; // of the request that runs
let chosenSpeed = false;
let following = false; // keep what is being written in view

// ---- what is shown

function show(tracks, mode) {
  player.load(tracks, mode);
  stages = tracks.map((track) => new Stage(track, (lane) => reader.open(track, lane)));
  byId("stage").replaceChildren(...stages.map((stage) => stage.el));
  byId("stage").dataset.runs = String(tracks.length);
  timeline.load(tracks);
  delete document.body.dataset.empty;
  byId("dock").hidden = false;
  byId("save").disabled = false;
  byId("run-tabs").hidden = tracks.length < 2;
  byId("run-tabs").replaceChildren(
    ...tracks.map((track, index) => {
      const tab = el("button", { type: "button" }, NAMES[track.mode] ?? track.mode, " ", el("span", { class: "clock" }));
      tab.addEventListener("click", () => showRun(index));
      return tab;
    }),
  );
  showRun(0);
  notice("");
  if (!chosenSpeed) player.speed = 1;
  wake();
}

/** Nothing came: back to the beginning. */
function clear() {
  player.load([], "idle");
  stages = [];
  following = false;
  timeline.load([]);
  byId("stage").replaceChildren();
  byId("run-tabs").hidden = true;
  byId("dock").hidden = true;
  byId("save").disabled = true;
  document.body.dataset.empty = "";
}

/** Where there is no room for two runs side by side, one is shown. */
function showRun(index) {
  byId("stage").dataset.shown = String(index);
  stages.forEach((stage, number) => stage.el.toggleAttribute("data-shown", number === index));
  [...byId("run-tabs").children].forEach((tab, number) => tab.setAttribute("aria-pressed", String(number === index)));
}

let awake = false;
let restless = 0; // until when things may still move

/** Draw in the next frame, and go on as long as something moves. */
function wake() {
  if (awake) return;
  awake = true;
  player.stamp = performance.now();
  requestAnimationFrame(frame);
}

function frame(now) {
  awake = player.tick(now);
  let changed = false;
  for (const stage of stages) changed = stage.draw() || changed;
  const clocks = player.tracks.map(clockOf);
  timeline.draw(clocks);
  stages.forEach((stage, index) => {
    const { run } = stage;
    const { total, critical_path } = run.tokens;
    const facts = total ? `${number(total)} tokens, longest chain ${number(critical_path)} in ${steps(run.tokens)} steps` : "";
    const name = NAMES[stage.track.mode] ?? stage.track.mode;
    stage.tell(name, clocks[index], stage.track.began === null ? "runs when the other is done" : facts);
    const clock = byId("run-tabs").children[index]?.lastElementChild;
    if (clock) clock.textContent = seconds(clocks[index]);
  });
  controls();
  if (changed) announce();
  if (changed) restless = now + 200;
  if (following && now < restless) follow();
  awake ||= now < restless;
  reader.draw();
  if (awake) requestAnimationFrame(frame);
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
  document.body.toggleAttribute("data-busy", controller !== null);
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

let told = "";

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
  const live = stages.find((one) => one.track.began && !one.run.finish) ?? stage;
  const tree = stages.every((one) => one.run.finish) ? byId("stage") : live.tree;
  const top = document.querySelector(".top").getBoundingClientRect().bottom;
  const bottom = byId("dock").getBoundingClientRect().top - 24;
  const blocks = tree.querySelectorAll(":scope > .trunk > .block");
  const block = live.run.trunk.stage === "waiting" && !live.run.finish ? blocks[blocks.length - 1] : null;
  const box = (block ?? tree).getBoundingClientRect();
  let by = box.bottom > bottom ? box.bottom - bottom : 0;
  if (block) by = Math.min(by, box.top - top);
  if (by > 1) scrollBy({ top: by, behavior: "instant" });
}

for (const kind of ["wheel", "touchmove"]) addEventListener(kind, () => (following = false), { passive: true });

/** Say what went wrong, or, as a note, what one should know of what is shown. */
function notice(text, button, kind = "problem") {
  const box = byId("notice");
  box.dataset.kind = kind;
  box.replaceChildren(text, ...(button ? [" ", button] : []));
  box.hidden = !text;
}

// ---- asking

function options() {
  const chosen = { temperature: Number(byId("temperature").value || 0) };
  for (const [id, name] of [["max-tokens", "max_tokens"], ["seed", "seed"], ["budget", "thinking_budget"]]) {
    if (byId(id).value !== "") chosen[name] = Number(byId(id).value);
  }
  return chosen;
}

async function askNow() {
  if (controller) {
    controller.abort();
    return;
  }
  const text = byId("question").value.trim();
  if (!text) {
    byId("question").focus();
    return;
  }
  question = text;
  model = served;
  byId("options").open = false;
  const tracks = [new Track("parallel")];
  if (byId("compare").checked) tracks.push(new Track("sequential"));
  controller = new AbortController();
  following = true;
  show(tracks, "live");
  byId("question").blur();
  try {
    if (!served) introduce((await models(controller.signal))[0]);
    model = served;
    unlike(text, model, controller.signal).then((said) => said && byId("notice").hidden && notice(said, undefined, "note"));
    for (const track of tracks) await listenTo(track, text, controller.signal);
  } catch (error) {
    explain(error);
  } finally {
    for (const track of tracks) close(track);
    controller = null;
    if (!tracks[0].moments.length) clear();
    player.finish();
    wake();
  }
}

/** One run after the other: each has the machine to itself, so their clocks can be compared. */
async function listenTo(track, text, signal) {
  track.began = performance.now();
  for await (const moment of ask({ question: text, model, mode: track.mode, options: options(), signal })) {
    track.add(moment);
    if (moment.model) model = moment.model;
    wake();
  }
  close(track);
}

/** Nothing more will come; a run that was broken off gets an end. */
function close(track) {
  if (track.done) return;
  if (!track.full.finish && track.moments.length) track.add({ event: "finish", branch: "", finish_reason: "abort" });
  track.done = true;
}

function explain(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) {
    notice(`Something went wrong on this page: ${error.message}`);
    throw error;
  }
  if (error.status === 401) {
    askKey(error.message);
    return;
  }
  const again = el("button", { type: "button" }, "Try again");
  again.addEventListener("click", askNow);
  if (error.status === 429) notice(`The server is busy${error.retryAfter ? `; it asks to wait ${error.retryAfter} s` : ""}.`, again);
  else notice(error.message, error.status === 0 || error.status >= 500 ? again : undefined);
}

function askKey(message) {
  byId("key").value = key();
  byId("key-text").textContent = `${message ? `The server says: ${message}. ` : ""}The key is kept in this tab only, and forgotten when you close it.`;
  byId("key-dialog").returnValue = "";
  byId("key-dialog").showModal();
}

byId("key-dialog").addEventListener("close", () => {
  if (byId("key-dialog").returnValue !== "ok") return;
  setKey(byId("key").value.trim());
  notice("");
  greet();
  if (location.hash === "#document") showDocument();
  else if (byId("question").value.trim() && !player.tracks.some((track) => track.moments.length)) askNow();
});
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
byId("key-button").addEventListener("click", () => askKey(""));

/** The model's name, and what it says of itself. */
function introduce(entry) {
  served = entry?.id ?? "";
  byId("model").textContent = served;
  showAbout(entry?.about ?? null, (example) => {
    byId("question").value = example;
    grow();
    askNow();
  });
}

/** Say which model answers here. */
async function greet() {
  try {
    introduce((await models())[0]);
  } catch (error) {
    byId("model").textContent = error.status === 401 ? "needs a key" : "";
  }
}

// ---- documents and files

async function showDocument() {
  const problem = byId("source-problem");
  problem.hidden = true;
  const text = byId("source").value;
  if (!text.trim()) {
    byId("source").focus();
    return;
  }
  try {
    const track = new Track("document", false);
    track.began = 0;
    for (const moment of await parse(text, byId("dialect").value)) track.add(moment);
    close(track);
    question = "";
    model = "";
    following = false;
    show([track], "paused");
  } catch (error) {
    if (error.status === 401) {
      askKey(error.message);
      return;
    }
    if (!(error instanceof ApiError)) throw error;
    problem.textContent = error.message;
    problem.hidden = false;
    const line = Number(/line (\d+)/.exec(error.message)?.[1] ?? 0);
    if (line) selectLine(byId("source"), line);
  }
}

function selectLine(area, line) {
  const before = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  const end = area.value.indexOf("\n", before);
  area.focus();
  area.setSelectionRange(before, end < 0 ? area.value.length : end);
}

async function openFile(file) {
  const text = await file.text();
  if (controller) controller.abort();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    location.hash = "#document";
    byId("source").value = text;
    await showDocument();
    return;
  }
  try {
    await openRecording(unpack(value));
  } catch (error) {
    notice(`${file.name}: ${error.message}`);
  }
}

/** A sample that a report has put into the address; it goes from there once it is opened. */
async function openLink() {
  const packed = location.hash.slice("#sample=".length);
  history.replaceState(null, "", "#ask");
  if (controller) controller.abort();
  let recording;
  try {
    recording = await unpackLink(packed);
  } catch {
    notice("This address holds no sample that can be read. Was it cut short? Open the sample's file instead.");
    return;
  }
  await openRecording(recording);
}

async function openRecording(recording) {
  const tracks = [];
  for (const run of recording.runs) {
    const track = await trackOf(run);
    if (!track) return;
    tracks.push(track);
  }
  location.hash = "#ask";
  question = recording.question;
  model = recording.model;
  byId("question").value = question;
  grow();
  following = false;
  show(tracks, "paused");
  if (recording.note) notice(recording.note, undefined, "note");
}

/** A run as a track. One that holds only a text is parsed by the server; if that fails, the text is shown with its fault. */
async function trackOf(run) {
  let { moments } = run;
  if (!moments) {
    try {
      moments = await parse(run.text, run.dialect);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      location.hash = "#document";
      byId("source").value = run.text;
      byId("dialect").value = run.dialect;
      await showDocument();
      return null;
    }
  }
  const track = new Track(run.mode, moments.some((moment) => moment.seconds > 0));
  track.began = 0;
  for (const moment of moments) track.add(moment);
  close(track);
  return track;
}

function save() {
  if (!player.tracks.length) return;
  const name = download(pack(question, model, player.tracks));
  byId("status").textContent = `Saved as ${name}`;
}

// ---- controls

function route() {
  if (location.hash.startsWith("#sample=")) openLink();
  const viewer = location.hash === "#document";
  following = false; // whoever goes elsewhere is not to be scrolled back
  byId("ask-form").hidden = viewer;
  byId("document-form").hidden = !viewer;
  byId("tab-ask").toggleAttribute("aria-current", !viewer);
  byId("tab-document").toggleAttribute("aria-current", viewer);
  if (document.body.dataset.view) scrollTo(0, 0);
  document.body.dataset.view = viewer ? "document" : "ask";
}

function replay() {
  if (!player.tracks.length) return false;
  if (!chosenSpeed && player.atEnd) player.speed = player.comfortable;
  following = player.mode === "paused";
  player.toggle();
  wake();
  return true;
}

function faster(by) {
  const at = SPEEDS.indexOf(player.speed) + by;
  player.speed = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, at))];
  chosenSpeed = true;
  wake();
}

function setAxis(axis) {
  timeline.axis = axis;
  for (const name of ["tokens", "seconds"]) byId(`axis-${name}`).setAttribute("aria-pressed", String(name === axis));
  wake();
}

function fold() {
  const folded = byId("dock").toggleAttribute("data-folded");
  byId("fold").setAttribute("aria-expanded", String(!folded));
}

/** Focus the next branch, or the one before. */
function moveLane(by) {
  const heads = [...document.querySelectorAll(".run .head")].filter((head) => head.offsetParent !== null);
  if (!heads.length) return;
  const at = heads.indexOf(document.activeElement);
  const to = heads[at < 0 ? (by > 0 ? 0 : heads.length - 1) : (at + by + heads.length) % heads.length];
  to.focus();
  to.scrollIntoView({ block: "nearest" });
}

function step(count) {
  if (!player.tracks.length) return false;
  player.step(count);
  wake();
  return true;
}

function toEdge(time) {
  if (!player.tracks.length) return false;
  player.seekTime(time);
  wake();
  return true;
}

/** Where the browser does not do it by itself, questions grow with what is written. */
function grow() {
  if (CSS.supports("field-sizing", "content")) return;
  const area = byId("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  askNow();
});
byId("document-form").addEventListener("submit", (event) => {
  event.preventDefault();
  showDocument();
});
byId("question").addEventListener("input", grow);
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!controller) askNow();
  }
});
byId("source").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
    event.preventDefault();
    showDocument();
  }
});
byId("current").addEventListener("click", () => {
  const text = player.tracks[0]?.full.text ?? "";
  if (text) byId("source").value = text.trim();
  byId("source").focus();
});
byId("play").addEventListener("click", replay);
byId("fold").addEventListener("click", fold);
byId("axis-tokens").addEventListener("click", () => setAxis("tokens"));
byId("axis-seconds").addEventListener("click", () => setAxis("seconds"));
byId("speed").replaceChildren(...SPEEDS.map((speed) => el("option", { value: String(speed) }, `${speed}×`)));
byId("speed").addEventListener("change", () => {
  player.speed = Number(byId("speed").value);
  chosenSpeed = true;
});
byId("save").addEventListener("click", save);
byId("open").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", () => {
  if (byId("file").files[0]) openFile(byId("file").files[0]);
  byId("file").value = "";
});
byId("theme").addEventListener("click", nextTheme);
byId("help").addEventListener("click", () => byId("help-dialog").showModal());
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.dataset.drop = "";
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) delete document.body.dataset.drop;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  delete document.body.dataset.drop;
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
});
addEventListener("hashchange", route);
// Sizes settle later than what has changed them: lanes are arranged anew, the time line grows.
const resized = new ResizeObserver(() => {
  restless = performance.now() + 200;
  wake();
});
for (const id of ["chart", "stage", "dock"]) resized.observe(byId(id));

byId("examples").replaceChildren(
  ...EXAMPLES.map(([name, text]) => {
    const button = el("button", { type: "button", title: text }, el("b", {}, name), el("span", {}, text));
    button.addEventListener("click", () => {
      byId("question").value = text;
      grow();
      askNow();
    });
    return el("li", {}, button);
  }),
);

listen({
  "/": () => {
    location.hash = "#ask";
    route();
    byId("question").select();
  },
  Escape: () => controller?.abort(),
  " ": replay,
  ArrowLeft: (event) => step(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => step(event.shiftKey ? 10 : 1),
  Home: () => toEdge(0),
  End: () => toEdge(player.duration),
  "<": () => faster(-1),
  ">": () => faster(1),
  j: () => moveLane(1),
  k: () => moveLane(-1),
  c: () => byId("compare").click(),
  a: () => setAxis(timeline.axis === "tokens" ? "seconds" : "tokens"),
  s: save,
  o: () => byId("file").click(),
  d: () => (location.hash = location.hash === "#document" ? "#ask" : "#document"),
  t: nextTheme,
  "?": () => byId("help-dialog").showModal(),
});

showTheme();
route();
greet();
