// Checks the official JavaScript SDK (npm `@anthropic-ai/sdk`) against a lab that somebody else
// started. Usage: LAB_URL=http://127.0.0.1:PORT node node_sdk.mjs, with the package installed in
// this directory, a parent, or the one that MOLTBOT_CLIENTS names. Exits 1 when a check fails.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const dir = process.env.MOLTBOT_CLIENTS;
const require = createRequire(dir ? pathToFileURL(path.resolve(dir, "x.js")) : import.meta.url);
const sdk = require("@anthropic-ai/sdk");
const Anthropic = sdk.default ?? sdk;

const LAB = process.env.LAB_URL;
if (!LAB) {
  console.error("set LAB_URL to the lab's URL, http://127.0.0.1:PORT");
  process.exit(1);
}
const KEY = "sk-ant-api03-FAKEFAKEFAKEFAKE-node";
const MODEL = "claude-opus-4-5";
const HELLO = [{ role: "user", content: "hello from node" }];
const SAID = "Hello from the lab. You said: hello from node";
const WEATHER = {
  name: "weather",
  input_schema: {
    type: "object",
    properties: { city: { type: "string" }, days: { type: "integer" } },
    required: ["city", "days"],
  },
};

const client = new Anthropic({ apiKey: KEY, baseURL: LAB, maxRetries: 0, timeout: 10_000 });

async function control(where, value) {
  const init = value === undefined ? {} : { method: "POST", body: JSON.stringify(value) };
  const reply = await fetch(LAB + where, init);
  const text = await reply.text();
  if (!reply.ok) throw new Error(`${where}: ${text}`);
  return JSON.parse(text);
}

const plan = (fault, more = {}) => control("/lab/plan", [{ fault, ...more }]);
const create = (more = {}, options = {}) =>
  client.messages.create({ model: MODEL, max_tokens: 100, messages: HELLO, ...more }, options);

async function raises(kind, call) {
  try {
    await call();
  } catch (error) {
    const raised = error.constructor.name;
    assert.equal(raised, kind, `raised ${raised}: ${error.message}`);
    return error;
  }
  throw new Error(`no ${kind} was raised`);
}

const checks = {
  async "create returns text, usage and request id"() {
    const message = await create();
    assert.equal(message.content[0].text, SAID);
    assert.equal(message.stop_reason, "end_turn");
    assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
    assert.match(message._request_id, /^req_/);
  },

  async "the SDK's own headers are accepted and logged"() {
    await control("/lab/reset", {});
    await create();
    const [entry] = (await control("/lab/log")).entries;
    const headers = Object.fromEntries(entry.headers);
    assert.ok(["2023-06-01", "2026-10-21"].includes(headers["anthropic-version"]));
    assert.equal(entry.credentials.length, 1);
    assert.equal(entry.credentials[0].kind, "api-key");
  },

  async "stream gives the same message"() {
    const stream = client.messages.stream({ model: MODEL, max_tokens: 100, messages: HELLO });
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    assert.equal(text, SAID);
    assert.equal(final.usage.output_tokens, (await create()).usage.output_tokens);
  },

  async "thinking comes signed and goes back"() {
    const thinking = { type: "enabled", budget_tokens: 1024 };
    const request = { model: MODEL, max_tokens: 2000, messages: HELLO, thinking };
    const first = await client.messages.stream(request).finalMessage();
    assert.deepEqual(first.content.map((block) => block.type), ["thinking", "text"]);
    const turns = [...HELLO, { role: "assistant", content: first.content }, ...HELLO];
    const second = await create({ max_tokens: 2000, thinking, messages: turns });
    assert.equal(second.stop_reason, "end_turn");
  },

  async "a tool is called and answered"() {
    const ask = [{ role: "user", content: "use tool weather" }];
    const request = { model: MODEL, max_tokens: 200, messages: ask, tools: [WEATHER] };
    const called = await client.messages.stream(request).finalMessage();
    assert.equal(called.stop_reason, "tool_use");
    const call = called.content.at(-1);
    assert.deepEqual(call.input, { city: "lab", days: 1 });
    const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
    const turns = [
      ...ask,
      { role: "assistant", content: called.content },
      { role: "user", content: [result] },
    ];
    const after = await create({ messages: turns, tools: [WEATHER] });
    assert.equal(after.content[0].text, "Hello from the lab. The tool said: sunny");
  },

  async "cached prompts show in the usage"() {
    await control("/lab/reset", {});
    const cache_control = { type: "ephemeral", ttl: "5m" };
    const system = [{ type: "text", text: "s".repeat(20_000), cache_control }];
    const first = (await create({ system })).usage;
    assert.equal(first.cache_creation.ephemeral_5m_input_tokens, 5000);
    await control("/lab/clock", { advanceSeconds: 299 });
    assert.equal((await create({ system })).usage.cache_read_input_tokens, 5000);
    await control("/lab/clock", { advanceSeconds: 301 });
    assert.equal((await create({ system })).usage.cache_read_input_tokens, 0);
  },

  async "count_tokens agrees with usage"() {
    const counted = await client.messages.countTokens({ model: MODEL, messages: HELLO });
    assert.equal(counted.input_tokens, (await create()).usage.input_tokens);
  },

  async "models are listed over pages"() {
    const ids = [];
    for await (const model of client.models.list({ limit: 4 })) ids.push(model.id);
    assert.ok(ids.length > 8 && ids.includes("claude-opus-5-5"));
    assert.equal(new Set(ids).size, ids.length);
    assert.equal((await client.models.retrieve(MODEL)).display_name, "Claude Opus 4.5");
    await raises("NotFoundError", () => client.models.retrieve("nope"));
  },

  async "every error has its class and body"() {
    const classes = {
      400: "BadRequestError",
      401: "AuthenticationError",
      402: "PaymentRequiredError",
      403: "PermissionDeniedError",
      404: "NotFoundError",
      409: "ConflictError",
      429: "RateLimitError",
    };
    for (const row of (await control("/lab/errors")).errors) {
      await plan({ error: row.name });
      let error;
      try {
        await create();
      } catch (raised) {
        error = raised;
      }
      assert.ok(error, `${row.name} raised nothing`);
      assert.equal(error.status, row.status, row.name);
      const known = classes[row.status];
      const wanted = Anthropic[known ?? "APIError"];
      assert.ok(error instanceof wanted, `${row.name}: ${error.constructor.name}`);
      if (row.status !== 503) assert.equal(error.error.error.message, row.message);
    }
  },

  async "the lab's own checks raise bad request"() {
    const error = await raises("BadRequestError", () => create({ colour: 1 }));
    assert.equal(error.error.error.message, "colour: Extra inputs are not permitted");
    await raises("BadRequestError", () => create({ temperature: 7 }));
    const wrong = new Anthropic({ apiKey: "wrong", baseURL: LAB, maxRetries: 0 });
    await raises("AuthenticationError", () => wrong.models.list());
  },

  async "an error event in the stream is raised"() {
    await plan({ sse: { error: "overloaded", afterEvents: 4 } });
    let error;
    try {
      await client.messages.stream({ model: MODEL, max_tokens: 9, messages: HELLO }).finalMessage();
    } catch (raised) {
      error = raised;
    }
    assert.match(String(error?.message), /Overloaded/);
  },

  async "broken connections are connection errors"() {
    await plan({ reset: "headers" });
    await raises("APIConnectionError", () => create());
    await plan({ stall: "headers" });
    await raises("APIConnectionTimeoutError", () => create({}, { timeout: 300 }));
  },

  async "the SDK retries what it should"() {
    const request = { model: MODEL, max_tokens: 100, messages: HELLO };
    for (const error of ["overloaded", "rate-limit", "server-error"]) {
      await control("/lab/reset", {});
      await plan({ error, headers: { "retry-after-ms": "1" } }, { times: 1 });
      const message = await client.messages.create(request, { maxRetries: 2 });
      assert.equal(message.content[0].text, SAID);
      assert.equal((await control("/lab/log")).entries.length, 2);
    }
  },

  async "the log holds no credential"() {
    assert.ok(!JSON.stringify(await control("/lab/log")).includes(KEY.slice(13, 25)));
  },
};

try {
  await control("/lab/reset", {});
} catch (error) {
  console.error(`no lab answers at ${LAB}: ${error.cause?.message ?? error.message}`);
  process.exit(1);
}

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await control("/lab/plan", []);
    await check();
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}: ${error.name}: ${String(error.message).split("\n")[0]}`);
  }
}
await control("/lab/plan", []);
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
