// The official `openai` package, unmodified, against a running server.
//
//   npm install
//   OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=key node conformance.mjs
//
// Prints the name of each check that holds; the first that does not ends it with an error.

import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const question =
  "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?";
const messages = [{ role: "user", content: question }];
const { data: models } = await client.models.list();
const model = models[0].id;
const ask = { model, messages, temperature: 0, max_tokens: 400 };

const checks = {
  async "chat"() {
    const { choices, usage } = await client.chat.completions.create(ask);
    assert.equal(choices[0].message.role, "assistant");
    assert.ok(choices[0].message.content.length > 0);
    assert.ok(choices[0].message.reasoning.length > 0);
    assert.equal(choices[0].finish_reason, "stop");
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert.ok(usage.multiverse.parallelism >= 1);
  },

  async "stream adds up to the whole answer"() {
    const whole = (await client.chat.completions.create(ask)).choices[0].message;
    let content = "";
    let reasoning = "";
    let last;
    const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      content += chunk.choices[0]?.delta.content ?? "";
      reasoning += chunk.choices[0]?.delta.reasoning ?? "";
      last = chunk;
    }
    assert.equal(content, whole.content);
    assert.equal(reasoning, whole.reasoning);
    assert.ok(last.usage.completion_tokens > 0);
  },

  async "stream helper"() {
    const runner = client.chat.completions.stream(ask);
    const final = await runner.finalChatCompletion();
    assert.ok(final.choices[0].message.content.length > 0);
  },

  async "branches pass through untouched"() {
    const stream = await client.chat.completions.create({ ...ask, stream: true, multiverse: { branches: true } });
    const events = [];
    let content = "";
    for await (const chunk of stream) {
      events.push(chunk.multiverse);
      content += chunk.choices[0].delta.content ?? "";
    }
    assert.equal(events[0].event, "start");
    assert.equal(events.at(-1).event, "finish");
    assert.ok(events.some(({ event, labels }) => event === "fork" && labels.length > 1));
    assert.equal(content, (await client.chat.completions.create(ask)).choices[0].message.content);
  },

  async "several answers and log-probabilities"() {
    const { choices } = await client.chat.completions.create({
      ...ask, temperature: 1, seed: 1, n: 2, max_tokens: 100, logprobs: true, top_logprobs: 2,
    });
    assert.deepEqual(choices.map(({ index }) => index), [0, 1]);
    const entries = choices.flatMap(({ logprobs }) => [...logprobs.content, ...logprobs.reasoning]);
    assert.ok(entries.length > 0);
    assert.ok(entries.every(({ logprob }) => logprob <= 0));
  },

  async "text completion, whole and streamed"() {
    const wanted = { model, prompt: "3+4=", max_tokens: 16, temperature: 0 };
    const { choices } = await client.completions.create(wanted);
    let text = "";
    for await (const chunk of await client.completions.create({ ...wanted, stream: true })) text += chunk.choices[0].text;
    assert.equal(text, choices[0].text);
  },

  async "errors are of the right class"() {
    await assert.rejects(client.chat.completions.create({ ...ask, model: "no-such-model" }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      return true;
    });
    await assert.rejects(client.chat.completions.create({ ...ask, tools: [{ type: "function", function: { name: "f" } }] }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, "tools");
      return true;
    });
    if (process.env.OPENAI_API_KEY_CHECKED) {
      await assert.rejects(new OpenAI({ apiKey: "wrong", maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
    }
  },

  async "a stream can be left"() {
    const stream = await client.chat.completions.create({ ...ask, stream: true, max_tokens: 2000, ignore_eos: true });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      break;
    }
    const controller = new AbortController();
    const pending = client.chat.completions.create({ ...ask, max_tokens: 2000, ignore_eos: true }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await assert.rejects(pending, OpenAI.APIUserAbortError);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok: ${name}`);
}
