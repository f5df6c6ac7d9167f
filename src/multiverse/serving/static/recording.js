// Conversations as files and as addresses.

import { fromColumns, toColumns } from "./columns.js";
import { Run } from "./model.js";

const FORMAT = "multiverse-recording";

/** What is saved of a conversation: its last turn as `question`, `model` and `runs`, and all of them as `turns` if there are more. */
export function pack(turns) {
  const each = turns.map(({ question, model, note, runs }) => ({ question, model, ...(note ? { note } : {}), runs: runs.map(({ mode, moments }) => ({ mode, moments })) }));
  const recording = { format: FORMAT, version: 1, saved: new Date().toISOString(), ...each[each.length - 1] };
  return each.length > 1 ? { ...recording, turns: each } : recording;
}

/** A file's turns, each with question, model, note and runs. Takes what `pack` makes, plain lists of moments, and runs that hold a text. */
export function unpack(value) {
  if (Array.isArray(value)) value = { runs: [{ mode: "parallel", moments: value }] };
  else if (Array.isArray(value?.events)) value = { ...value, runs: [{ mode: value.mode ?? "parallel", moments: value.events }] };
  if (value?.version > 1) throw new Error(`This file is of version ${value.version}; this page reads version 1.`);
  const turns = Array.isArray(value?.turns) && value.turns.length ? value.turns : [value];
  return turns.map(unpackTurn);
}

function unpackTurn(value) {
  if (!Array.isArray(value?.runs) || !value.runs.length) throw new Error("This file holds no generation.");
  const runs = value.runs.map((run, index) => {
    const mode = String(run?.mode ?? "parallel");
    if (typeof run?.text === "string") return { mode, text: run.text, dialect: String(run.dialect ?? "") };
    const moments = run?.columns ? fromColumns(run.columns) : run?.moments;
    const sound = Array.isArray(moments) && moments.every((moment) => typeof moment?.event === "string");
    if (!sound || !moments.length) throw new Error(`Run ${index + 1} of this file holds no moments.`);
    check(moments, index);
    return { mode, moments };
  });
  return { question: String(value.question ?? ""), model: String(value.model ?? ""), note: String(value.note ?? ""), runs };
}

/** Moments that do not fit together are refused here, before anything is shown or kept of them. */
function check(moments, index) {
  const run = new Run("parallel");
  try {
    for (const moment of moments) run.feed(moment);
  } catch (error) {
    throw new Error(`Run ${index + 1} of this file cannot be drawn (${error.message}).`);
  }
}

/** What an address holds behind `#sample=`: a recording as JSON, deflated, in URL-safe base64. */
export async function packLink(turns) {
  const narrow = (turn) => ({ ...turn, runs: turn.runs.map(({ mode, moments }) => ({ mode, columns: toColumns(moments) })) });
  const { turns: all, saved, ...recording } = pack(turns);
  const value = all ? { format: FORMAT, version: 1, turns: all.map(narrow) } : narrow(recording);
  const stream = new Blob([JSON.stringify(value)]).stream().pipeThrough(new CompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let letters = "";
  for (let at = 0; at < bytes.length; at += 8192) letters += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export async function unpackLink(packed) {
  const bytes = Uint8Array.from(atob(packed.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return unpack(JSON.parse(await new Response(stream).text()));
}

/** Hand a recording to the browser as a download. */
export function download(recording) {
  const words = recording.question.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["document"];
  const blob = new Blob([JSON.stringify(recording)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${words.slice(0, 6).join("-").slice(0, 80)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  return link.download;
}
