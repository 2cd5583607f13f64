// Checks the official JavaScript packages of both vendors (`@anthropic-ai/sdk`, `openai`) through
// a gateway whose service is a lab; somebody else started both. Usage: GATEWAY_URL=...
// GATEWAY_TOKEN=... LAB_URL=... node gateway_node.mjs, with the packages installed in the directory
// that MOLTBOT_CLIENTS names. Exits 1 when a check fails. A package that is missing is said.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const dir = process.env.MOLTBOT_CLIENTS;
const require = createRequire(dir ? pathToFileURL(path.resolve(dir, "x.js")) : import.meta.url);
const { GATEWAY_URL: GATEWAY, GATEWAY_TOKEN: TOKEN, LAB_URL: LAB } = process.env;
const MODEL = "claude-opus-4-5";
const HELLO = [{ role: "user", content: "hello from node" }];
const SAID = "Hello from the lab. You said: hello from node";
const ASK = [{ role: "user", content: "use tool weather" }];
const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
};

function load(name) {
  try {
    const loaded = require(name);
    return loaded.default ?? loaded;
  } catch {
    console.log(`SKIPPED: the npm package ${name} is not installed`);
    return null;
  }
}

const Anthropic = load("@anthropic-ai/sdk");
const OpenAI = load("openai");

async function control(where, value) {
  const init = value === undefined ? {} : { method: "POST", body: JSON.stringify(value) };
  const reply = await fetch(LAB + where, init);
  const text = await reply.text();
  if (!reply.ok) throw new Error(`${where}: ${text}`);
  return JSON.parse(text);
}

const last = async () => (await control("/lab/log")).entries.at(-1);

async function raises(status, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.status, status, `${error.name}: ${error.message}`);
    return error;
  }
  throw new Error(`nothing was raised instead of ${status}`);
}

const options = { apiKey: TOKEN, maxRetries: 0, timeout: 60_000 };
const ours = Anthropic && new Anthropic({ ...options, baseURL: GATEWAY });
const theirs = OpenAI && new OpenAI({ ...options, baseURL: `${GATEWAY}/v1` });
const messages = (more = {}) =>
  ours.messages.create({ model: MODEL, max_tokens: 100, messages: HELLO, ...more });
const chat = (more = {}) =>
  theirs.chat.completions.create({ model: MODEL, messages: HELLO, ...more });

const anthropicChecks = {
  async "messages, whole, streamed and counted"() {
    const message = await messages();
    assert.equal(message.content[0].text, SAID);
    assert.match(message._request_id, /^req_/);
    const stream = ours.messages.stream({ model: MODEL, max_tokens: 100, messages: HELLO });
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    assert.equal(text, SAID);
    assert.equal(final.usage.output_tokens, message.usage.output_tokens);
    const counted = await ours.messages.countTokens({ model: MODEL, messages: HELLO });
    assert.equal(counted.input_tokens, message.usage.input_tokens);
  },

  async "its own headers pass, its token does not"() {
    await messages();
    const entry = await last();
    const headers = Object.fromEntries(entry.headers);
    assert.ok(headers["anthropic-version"] && headers["x-stainless-lang"] === "js");
    assert.equal(entry.credentials.length, 1);
    assert.ok(!JSON.stringify(entry).includes(TOKEN));
  },

  async "a tool is called and answered"() {
    const tools = [{ name: "weather", input_schema: SCHEMA }];
    const request = { model: MODEL, max_tokens: 200, messages: ASK, tools };
    const called = await ours.messages.stream(request).finalMessage();
    const call = called.content.at(-1);
    assert.deepEqual(call.input, { city: "lab", days: 1 });
    const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
    const turns = [
      ...ASK,
      { role: "assistant", content: called.content },
      { role: "user", content: [result] },
    ];
    const after = await messages({ messages: turns, tools });
    assert.equal(after.content[0].text, "Hello from the lab. The tool said: sunny");
  },

  async "models and errors"() {
    const ids = [];
    for await (const model of ours.models.list({ limit: 4 })) ids.push(model.id);
    assert.ok(ids.includes("claude-opus-5-5") && ids.length > 4);
    const error = await raises(400, () => messages({ colour: 1 }));
    assert.equal(error.error.error.message, "colour: Extra inputs are not permitted");
    await raises(404, () => ours.models.retrieve("nope"));
    const wrong = new Anthropic({ ...options, apiKey: "wrong", baseURL: GATEWAY });
    await raises(401, () =>
      wrong.messages.create({ model: MODEL, max_tokens: 9, messages: HELLO }));
  },
};

const openaiChecks = {
  async "completions, whole and streamed"() {
    const whole = await chat();
    assert.equal(whole.choices[0].message.content, SAID);
    let text = "";
    let usage;
    const request = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await chat(request)) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, SAID);
    assert.deepEqual(usage, whole.usage);
  },

  async "a function is called and answered"() {
    const tools = [{ type: "function", function: { name: "weather", parameters: SCHEMA } }];
    const { message } = (await chat({ messages: ASK, tools })).choices[0];
    const [call] = message.tool_calls;
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "lab", days: 1 });
    const stream = theirs.chat.completions.stream({ model: MODEL, messages: ASK, tools });
    const final = await stream.finalChatCompletion();
    const streamed = final.choices[0].message.tool_calls[0].function.arguments;
    assert.deepEqual(JSON.parse(streamed), { city: "lab", days: 1 });
    const answer = { role: "tool", tool_call_id: call.id, content: "sunny" };
    const after = await chat({ messages: [...ASK, message, answer], tools });
    assert.equal(after.choices[0].message.content, "Hello from the lab. The tool said: sunny");
  },

  async "responses, whole and streamed"() {
    const whole = await theirs.responses.create({ model: MODEL, input: HELLO });
    assert.equal(whole.output_text, SAID);
    const stream = theirs.responses.stream({ model: MODEL, input: HELLO });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const final = await stream.finalResponse();
    assert.equal(text, SAID);
    assert.deepEqual([final.output_text, final.usage], [SAID, whole.usage]);
    await raises(400, () =>
      theirs.responses.create({ model: MODEL, input: HELLO, previous_response_id: "resp_1" }));
  },

  async "an agent thinks, calls and goes on"() {
    const tools = [{ type: "function", name: "weather", parameters: SCHEMA, strict: false }];
    const reasoning = { effort: "high", summary: "auto" };
    const request = { model: "claude-opus-5-5", input: ASK, tools, reasoning };
    const final = await theirs.responses.stream(request).finalResponse();
    const call = final.output.at(-1);
    assert.deepEqual(JSON.parse(call.arguments), { city: "lab", days: 1 });
    assert.equal(final.output[0].type, "reasoning");
    const { call_id } = call;
    const result = { type: "function_call_output", call_id, output: "sunny" };
    const input = [...ASK, ...final.output, result];
    const after = await theirs.responses.create({ ...request, input });
    assert.equal(after.output_text, "Hello from the lab. The tool said: sunny");
  },

  async "models and errors"() {
    const ids = [];
    for await (const model of theirs.models.list()) ids.push(model.id);
    assert.ok(ids.includes(MODEL));
    const error = await raises(400, () => chat({ messages: [] }));
    assert.match(error.message, /Missing user message/);
    await raises(404, () => theirs.models.retrieve("nope"));
    const wrong = new OpenAI({ ...options, apiKey: "wrong", baseURL: `${GATEWAY}/v1` });
    await raises(401, () => wrong.chat.completions.create({ model: MODEL, messages: HELLO }));
  },
};

let passed = 0;
let failed = 0;
for (const [client, checks] of [[ours, anthropicChecks], [theirs, openaiChecks]]) {
  for (const [name, check] of client ? Object.entries(checks) : []) {
    try {
      await control("/lab/plan", []);
      await check();
      passed += 1;
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}: ${error.name}: ${String(error.message).split("\n")[0]}`);
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
