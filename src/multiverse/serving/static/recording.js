// Generations as files.

const FORMAT = "multiverse-recording";

/** What is saved of a question and its runs. */
export function pack(question, model, tracks) {
  return {
    format: FORMAT,
    version: 1,
    saved: new Date().toISOString(),
    question,
    model,
    runs: tracks.map((track) => ({ mode: track.mode, moments: track.moments })),
  };
}

/** A file's question, model, note and runs. Takes what `pack` makes, plain lists of moments, and runs that hold a text. */
export function unpack(value) {
  if (Array.isArray(value)) value = { runs: [{ mode: "parallel", moments: value }] };
  else if (Array.isArray(value?.events)) value = { ...value, runs: [{ mode: value.mode ?? "parallel", moments: value.events }] };
  if (!Array.isArray(value?.runs) || !value.runs.length) throw new Error("This file holds no generation.");
  if (value.version > 1) throw new Error(`This file is of version ${value.version}; this page reads version 1.`);
  const runs = value.runs.map((run, index) => {
    const mode = String(run?.mode ?? "parallel");
    if (typeof run?.text === "string") return { mode, text: run.text, dialect: String(run.dialect ?? "") };
    const moments = run?.moments;
    const sound = Array.isArray(moments) && moments.every((moment) => typeof moment?.event === "string");
    if (!sound || !moments.length) throw new Error(`Run ${index + 1} of this file holds no moments.`);
    return { mode, moments };
  });
  return { question: String(value.question ?? ""), model: String(value.model ?? ""), note: String(value.note ?? ""), runs };
}

/** What an address holds behind `#sample=`: a recording as JSON, deflated, in URL-safe base64. */
export async function unpackLink(packed) {
  const bytes = Uint8Array.from(atob(packed.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return unpack(JSON.parse(await new Response(stream).text()));
}

/** Hand a recording to the browser as a download. */
export function download(recording) {
  const words = recording.question.toLowerCase().match(/[a-z0-9]+/g) ?? ["document"];
  const blob = new Blob([JSON.stringify(recording)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${words.slice(0, 6).join("-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  return link.download;
}
