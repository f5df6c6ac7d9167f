// The page: what the parts do together.

import { showAbout } from "./about.js";
import { ApiError, key, models, setKey } from "./api.js";
import { Chat } from "./chat.js";
import { copy } from "./copy.js";
import { byId, el } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { Files } from "./files.js";
import { History, retitle } from "./history.js";
import { listen } from "./keyboard.js";
import { invalidField, openOptions, restoreOptions } from "./options.js";
import { place } from "./panel.js";
import { SPEEDS } from "./player.js";
import { download, pack, packLink } from "./recording.js";
import * as scene from "./scene.js";
import { nextTheme, showTheme } from "./theme.js";

const LONG_LINK = 32_000; // characters; what many programs that pass links on take

let served = ""; // the model that this server offers
let refused = null; // what to ask again once there is a key

const page = { arrange, askKey, explain, model, notice, remember };
const chat = (page.chat = new Chat(page));
const files = new Files(page);
const past = new History({
  current: () => chat.conversation.id,
  open: openChat,
  gone: (ids) => ids.includes(chat.conversation.id) && newChat(),
  rename: async (id, title) => {
    if (id === chat.conversation.id) chat.conversation.title = title;
    await retitle(id, title);
  },
});

scene.onChange(() => {
  document.body.toggleAttribute("data-busy", chat.controller !== null);
  if (!files.document) chat.tell();
});

// ---- what is said beside the answer

/** Say what went wrong, or, as a note, what one should know of what is shown. */
function notice(text, button, kind = "problem") {
  const box = byId("notice");
  box.dataset.kind = kind;
  box.replaceChildren(el("span", {}, text), ...(button ? [button] : []));
  box.hidden = !text;
}

/** Say why there is no answer, or only a part of one. Where nothing came, the question goes back to where it was written. */
function explain(error, question, again, nothing) {
  if (nothing && !byId("question").value) {
    byId("question").value = question;
    grow();
  }
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) {
    notice(`Something went wrong on this page: ${error.message}`);
    throw error;
  }
  const repeat = () => {
    if (byId("question").value.trim() === question) byId("question").value = "";
    grow();
    again();
  };
  if (error.status === 401) {
    refused = repeat;
    askKey(error.message);
    return;
  }
  const button = el("button", { type: "button" }, "Try again");
  button.addEventListener("click", repeat);
  if (error.status === 429) notice(`The server is busy${error.retryAfter ? `; it asks to wait ${error.retryAfter} s` : ""}.`, button);
  else notice(error.message, error.status === 0 || error.status >= 500 ? button : undefined);
}

function askKey(message) {
  byId("key").value = key();
  byId("key-text").textContent = `${message ? `The server says: ${message}. ` : ""}The key is kept in this tab only, and forgotten when you close it.`;
  byId("key-dialog").returnValue = "";
  byId("key-dialog").showModal();
}

byId("key-dialog").addEventListener("close", () => {
  const repeat = refused;
  refused = null;
  if (byId("key-dialog").returnValue !== "ok") return;
  setKey(byId("key").value.trim());
  notice("");
  greet();
  if (location.hash === "#document") files.showDocument();
  else repeat?.();
});

// ---- the model

/** The model's name, and what it says of itself. */
function introduce(entry) {
  served = entry?.id ?? "";
  chat.window = entry?.max_model_len ?? 0;
  byId("model").textContent = served;
  showAbout(entry?.about ?? null, (example) => chat.ask(example));
}

/** The model to ask. A server that did not answer before may do so now. */
async function model(signal) {
  if (!served) introduce((await models(signal))[0]);
  return served;
}

async function greet() {
  try {
    introduce((await models())[0]);
  } catch (error) {
    byId("model").textContent = error.status === 401 ? "needs a key" : "";
  }
}

// ---- where things stand

/** The composer stands in the middle of an empty page, and else at the bottom, below the time line. */
function arrange() {
  const empty = chat.empty && !files.document;
  document.body.toggleAttribute("data-empty", empty);
  document.body.dataset.shows = files.document ? "document" : "chat";
  if (byId("dock").hidden !== empty) {
    byId("dock").hidden = empty;
    (empty ? byId("start") : byId("dock")).append(byId("notice"), byId("ask-form"));
  }
  byId("question").placeholder = chat.empty ? "Ask something that has parts…" : "Ask on…";
}

/** What a reload shows again. In the state of this entry of the tab's history: other tabs have other conversations. */
function remember(id) {
  history.replaceState({ chat: id, draft: byId("question").value }, "");
}

// Browsers differ in which of these comes when, and in which a page may still write.
for (const leaving of ["beforeunload", "pagehide"]) {
  addEventListener(leaving, () => {
    if (chat.controller) chat.save();
    remember(chat.empty ? null : chat.conversation.id);
  });
}

async function openChat(id) {
  location.hash = "#ask";
  files.document = null;
  notice("");
  if (!(await chat.restore(id))) notice("This conversation is no longer here.");
  else remember(id);
}

function newChat() {
  location.hash = "#ask";
  files.document = null;
  notice("");
  chat.begin();
  byId("question").focus();
}

async function begin() {
  const { chat: id, draft } = history.state ?? {};
  if (location.hash.startsWith("#sample=")) {
    await files.openLink();
    return;
  }
  arrange();
  if (id && chat.empty) await chat.restore(id);
  if (draft && !byId("question").value) byId("question").value = draft;
  grow();
}

function route() {
  if (!history.state?.chat && !chat.empty) remember(chat.conversation.id);
  const viewer = location.hash === "#document";
  scene.setFollowing(false); // whoever goes elsewhere is not to be scrolled back
  if (!viewer) files.leave();
  byId("ask-form").hidden = viewer;
  byId("document-form").hidden = !viewer;
  byId("tab-ask").toggleAttribute("aria-current", !viewer);
  byId("tab-document").toggleAttribute("aria-current", viewer);
  const moved = document.body.dataset.view && document.body.dataset.view !== (viewer ? "document" : "ask");
  document.body.dataset.view = viewer ? "document" : "ask";
  if (moved && viewer) scrollTo(0, 0);
  else if (moved) chat.toLast();
}

// ---- asking and saving

function askNow() {
  if (chat.controller) {
    chat.stop();
    return;
  }
  const text = byId("question").value.trim();
  const field = invalidField();
  if (field) {
    openOptions();
    field.reportValidity();
  } else if (text) {
    byId("question").value = "";
    grow();
    byId("question").blur();
    chat.ask(text);
  } else byId("question").focus();
}

function shownTurns() {
  if (!files.document) return chat.exchanges;
  return [{ question: "", model: "", runs: [files.document] }];
}

function save() {
  if (!scene.player.tracks.length) return;
  const name = download(pack(shownTurns()));
  byId("status").textContent = `Saved as ${name}`;
}

/** Copy an address that holds what is shown. */
async function shareLink() {
  if (!scene.player.tracks.length) return;
  const address = `${location.href.split("#")[0]}#sample=${await packLink(shownTurns())}`;
  if (!(await copy(address, "Link copied"))) notice("This browser lets the page copy nothing here: save a file instead.");
  else if (address.length > LONG_LINK) notice(`The link is copied. It holds ${address.length.toLocaleString("en-GB")} characters, which some programs cut short: a saved file is safer.`, undefined, "note");
  else notice("The link is copied. It holds the whole conversation; the server keeps none of it.", undefined, "note");
}

/** Where the browser does not do it by itself, questions grow with what is written. */
function grow() {
  if (CSS.supports("field-sizing", "content")) return;
  const area = byId("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

function write() {
  location.hash = "#ask";
  route();
  byId("question").select();
}

// ---- controls

const onClick = {
  "key-cancel": () => byId("key-dialog").close(),
  "key-button": () => askKey(""),
  play: scene.replay,
  fold: scene.fold,
  "axis-tokens": () => scene.setAxis("tokens"),
  "axis-seconds": () => scene.setAxis("seconds"),
  save,
  link: shareLink,
  open: () => byId("file").click(),
  new: newChat,
  history: () => past.show(),
  theme: nextTheme,
  help: () => byId("help-dialog").showModal(),
  current: () => {
    const text = scene.player.tracks[0]?.full.text ?? "";
    if (text) byId("source").value = text.trim();
    byId("source").focus();
  },
};
for (const [id, act] of Object.entries(onClick)) byId(id).addEventListener("click", act);
byId("menu").addEventListener("toggle", (event) => event.newState === "open" && place(byId("menu"), byId("more")));
byId("menu").addEventListener("click", () => byId("menu").matches(":popover-open") && byId("menu").hidePopover());

byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  askNow();
});
byId("document-form").addEventListener("submit", (event) => {
  event.preventDefault();
  files.showDocument();
});
byId("question").addEventListener("input", grow);
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!chat.controller) askNow();
  } else if (event.key === "ArrowUp" && !event.target.value && chat.last && !chat.controller) {
    event.preventDefault();
    chat.last.edit();
  }
});
byId("source").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
    event.preventDefault();
    files.showDocument();
  }
});
byId("speed").replaceChildren(...SPEEDS.map((speed) => el("option", { value: String(speed) }, `${speed}×`)));
byId("speed").addEventListener("change", () => scene.setSpeed(Number(byId("speed").value)));
byId("file").addEventListener("change", () => {
  if (byId("file").files[0]) files.open(byId("file").files[0]);
  byId("file").value = "";
});
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
  if (event.dataTransfer.files[0]) files.open(event.dataTransfer.files[0]);
});
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#sample=")) files.openLink();
  route();
});
const resized = new ResizeObserver(() => {
  // What is focused or scrolled to is not to lie below the dock.
  document.documentElement.style.scrollPaddingBottom = `${byId("dock").offsetHeight + 16}px`;
  scene.unsettle();
});
for (const id of ["chart", "stage", "dock"]) resized.observe(byId(id));

byId("examples").replaceChildren(
  ...EXAMPLES.map(([name, text]) => {
    const button = el("button", { type: "button", title: text }, el("b", {}, name), el("span", {}, text));
    button.addEventListener("click", () => chat.ask(text));
    return el("li", {}, button);
  }),
);

listen({
  "/": write,
  Escape: () => chat.stop(),
  " ": scene.replay,
  ArrowLeft: (event) => scene.step(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => scene.step(event.shiftKey ? 10 : 1),
  Home: () => scene.toEdge(0),
  End: () => scene.toEdge(scene.player.duration),
  "<": () => scene.faster(-1),
  ">": () => scene.faster(1),
  j: () => scene.moveLane(1),
  k: () => scene.moveLane(-1),
  c: () => byId("compare").click(),
  a: scene.otherAxis,
  s: save,
  o: () => byId("file").click(),
  l: shareLink,
  n: newChat,
  h: () => past.show(),
  e: () => chat.last?.edit(),
  r: () => chat.last?.does.again(),
  d: () => (location.hash = location.hash === "#document" ? "#ask" : "#document"),
  t: nextTheme,
  "?": () => byId("help-dialog").showModal(),
});

showTheme();
restoreOptions();
route();
begin();
greet();
