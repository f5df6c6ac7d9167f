// OpenAI's package of npm against `multiverse serve`: the branches of a stream, as they are written.
//
//   multiverse serve &
//   npm install openai && node openai_client.mjs
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2] ?? "http://127.0.0.1:8000/v1", apiKey: "none" });
const question =
  "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. What is the total?";
const { data: models } = await client.models.list();
const stream = await client.chat.completions.create({
  model: models[0].id,
  messages: [{ role: "user", content: question }],
  temperature: 0,
  stream: true,
  multiverse: { branches: true },
});
const lanes = {};
for await (const { multiverse: event } of stream) {
  if (event.event === "fork") for (const label of event.labels) lanes[label] = "";
  if (event.event === "token" && event.role === "text" && event.branch in lanes) lanes[event.branch] += event.text;
  if (event.event === "branch_end") console.log(`${event.branch}: ${lanes[event.branch].trim()}`);
  if (event.event === "finish") console.log(`answer: ${event.answer} (${event.usage.parallelism.toFixed(2)} tokens at a time)`);
}
