// The server, as the page needs it. Addresses are relative, so that it also works behind a path prefix.

const KEY = "multiverse-key";

/** An answer that is not the one asked for. */
export class ApiError extends Error {
  constructor(message, status, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

async function call(path, body, signal) {
  const headers = { "content-type": "application/json" };
  if (key()) headers.authorization = `Bearer ${key()}`;
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?", 0);
  }
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response) {
  let message = `The server answered ${response.status}.`;
  try {
    const body = await response.json();
    message = body.error?.message ?? message;
  } catch {
    // not JSON: a proxy in between, perhaps
  }
  return new ApiError(message, response.status, response.headers.get("retry-after"));
}

/** The models that the server offers. */
export async function models(signal) {
  const response = await call("v1/models", undefined, signal);
  return (await response.json()).data ?? [];
}

/** Whether a question is unlike those that the model was trained on, and what to say then. */
export async function familiarity(question, model, signal) {
  return (await call("familiarity", { question, model }, signal)).json();
}

/** The events of a structured document, as if it were being written. */
export async function parse(text, dialect) {
  const body = dialect ? { text, dialect } : { text };
  return (await (await call("parse", body)).json()).events;
}

/** Ask, and yield the moments of the answer as they come. What later requests have to send back gathers in `reply`. */
export async function* ask({ messages, model, mode, options, signal }, reply) {
  const { thinking_budget, ...rest } = options;
  const body = {
    ...rest,
    model,
    messages,
    stream: true,
    multiverse: { branches: true, mode, ...(thinking_budget === undefined ? {} : { thinking_budget }) },
  };
  const response = await call("v1/chat/completions", body, signal);
  for await (const data of lines(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message ?? "The server stopped with an error.", 500);
    for (const { delta, multiverse } of chunk.choices ?? []) {
      reply.content += delta?.content ?? "";
      reply.reasoning += delta?.reasoning ?? delta?.reasoning_content ?? "";
      if (multiverse?.answer_text) reply.whole = multiverse.answer_text; // of an answer that forks: with its tags
    }
    if (chunk.multiverse?.event) yield chunk.multiverse;
  }
}

/** The data lines of a stream of server-sent events. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const all = (rest + value).split(/\r\n|\n|\r/);
      rest = all.pop();
      for (const line of all) {
        if (line.startsWith("data:")) yield line.slice(5).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // tells the server that nobody listens any more
  }
}
