// The OpenAI package for JavaScript, as https://github.com/openai/openai-node shows it.

import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  ANSWER,
  AUTO,
  BASE_URL,
  CAPITAL,
  CITIES,
  EMBEDDINGS,
  FIRST,
  KEY,
  MODEL,
  QUESTION,
  ROLE,
  contains,
  expect,
  feature,
  raises,
  report,
} from "./feature.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0 });
const Capital = z.object({ capital: z.enum(CITIES) });
const user = [{ role: "user", content: QUESTION }];
const france = [{ role: "user", content: CAPITAL }];
const tool = zodFunction({ name: "capital", description: "首都を答える。", parameters: Capital });
const named = { type: "function", function: { name: "capital" } };

function ask(messages = user, more = {}) {
  return client.chat.completions.create({ model: MODEL, messages, temperature: 0, ...more });
}

function textOf(completion) {
  return completion.choices[0].message.content;
}

function called(choice) {
  const [call] = choice.message.tool_calls;
  expect(call.function.name === "capital" && call.id, choice);
  return Capital.parse(JSON.parse(call.function.arguments));
}

feature("chat", "", async () => contains(textOf(await ask())));

feature("stream", "", async () => {
  const texts = [];
  for await (const chunk of await ask(user, { stream: true })) {
    texts.push(chunk.choices[0]?.delta?.content ?? "");
  }
  expect(texts.length > 2, texts);
  return contains(texts.join(""));
});

feature("stream", "chat.completions.stream", async () => {
  const stream = client.chat.completions.stream({ model: MODEL, messages: user, temperature: 0 });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalContent();
  expect(final === text, { final, text });
  return contains(text);
});

feature("batch", "several at a time", async () => {
  const texts = (await Promise.all([ask(), ask(france), ask()])).map(textOf);
  contains(texts[0]);
  expect(texts[0] === texts[2], texts);
  return texts;
});

feature("system", "", async () =>
  contains(textOf(await ask([{ role: "system", content: ROLE }, ...user])), "なのだ"),
);

feature("system", "developer", async () =>
  contains(textOf(await ask([{ role: "developer", content: ROLE }, ...user])), "なのだ"),
);

feature("history", "message put back", async () => {
  const { message } = (await ask()).choices[0];
  return contains(textOf(await ask([...user, message, { role: "user", content: FIRST }])), QUESTION);
});

feature("sampling", "", async () => {
  const [choice] = (await ask(user, { stop: ["富士"], max_tokens: 30, seed: 1, n: 1 })).choices;
  expect(choice.message.content === "日本で一番高い山は" && choice.finish_reason === "stop", choice);
  return choice.message.content;
});

feature("usage", "stream", async () => {
  let usage;
  const asked = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await ask(user, asked)) usage = chunk.usage ?? usage;
  expect(usage.completion_tokens > 0, usage);
  return usage;
});

feature("logprobs", "", async () => {
  const { content } = (await ask(user, { logprobs: true, top_logprobs: 2 })).choices[0].logprobs;
  expect(content.length > 2 && content[0].top_logprobs.length === 2, content);
  return content[0];
});

feature("JSON object", "", async () => {
  const text = textOf(await ask(france, { response_format: { type: "json_object" } }));
  expect(typeof JSON.parse(text) === "object", text);
  return text;
});

feature("JSON schema", "parse", async () => {
  const completion = await client.chat.completions.parse({
    model: MODEL,
    messages: france,
    temperature: 0,
    response_format: zodResponseFormat(Capital, "capital"),
  });
  return Capital.parse(completion.choices[0].message.parsed);
});

feature("JSON schema", "stream", async () => {
  const stream = client.chat.completions.stream({
    model: MODEL,
    messages: france,
    temperature: 0,
    response_format: zodResponseFormat(Capital, "capital"),
  });
  return Capital.parse((await stream.finalChatCompletion()).choices[0].message.parsed);
});

feature("tool named", "", async () =>
  called((await ask(france, { tools: [tool], tool_choice: named })).choices[0]),
);

feature("tool required", "", async () =>
  called((await ask(france, { tools: [tool], tool_choice: "required" })).choices[0]),
);

feature("tool streamed", "", async () => {
  let text = "";
  const asked = { tools: [tool], tool_choice: named, stream: true };
  for await (const chunk of await ask(france, asked)) {
    for (const call of chunk.choices[0]?.delta?.tool_calls ?? []) {
      text += call.function?.arguments ?? "";
    }
  }
  return Capital.parse(JSON.parse(text));
});

feature("tool streamed", "chat.completions.stream", async () => {
  const stream = client.chat.completions.stream({
    model: MODEL,
    messages: france,
    temperature: 0,
    tools: [tool],
    tool_choice: "required",
  });
  return called((await stream.finalChatCompletion()).choices[0]);
});

feature("tool result", "", async () => {
  const asked = { tools: [tool], tool_choice: named };
  const { message } = (await ask(france, asked)).choices[0];
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "パリ" };
  const text = textOf(await ask([...france, message, result], { tools: [tool] }));
  expect(text.trim(), text);
  return text;
});

feature("tool result", "runTools, one call required", async () => {
  const called = [];
  const run = client.chat.completions.runTools(
    {
      model: MODEL,
      messages: france,
      temperature: 0,
      tool_choice: named,
      tools: [zodFunction({ name: "capital", parameters: Capital, function: (a) => called.push(a) })],
    },
    { maxChatCompletions: 2 },
  );
  await run.finalMessage();
  expect(called.length > 0, called);
  return called[0];
});

feature("tool auto", "", async () => called((await ask(france, { tools: [tool] })).choices[0]), AUTO);

feature("tool auto", "answered in text", async () =>
  contains(textOf(await ask(user, { tools: [tool], tool_choice: "auto" }))),
);

feature("completions", "", async () => {
  const prompt = "日本で一番高い山は";
  const asked = { model: MODEL, prompt, max_tokens: 8, temperature: 0 };
  const { text } = (await client.completions.create(asked)).choices[0];
  expect(text, text);
  return text;
});

feature("models", "", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  expect(names[0] === MODEL && names.length === 1, names);
  expect((await client.models.retrieve(MODEL)).id === MODEL, names);
  return names;
});

feature("responses", "", async () => {
  const found = await client.responses.create({
    model: MODEL,
    instructions: ROLE,
    input: QUESTION,
    temperature: 0,
  });
  return contains(found.output_text, "なのだ");
});

feature("responses", "stream", async () => {
  let text = "";
  const asked = { model: MODEL, input: QUESTION, stream: true, temperature: 0 };
  for await (const event of await client.responses.create(asked)) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  return contains(text);
});

feature("responses", "parse", async () => {
  const found = await client.responses.parse({
    model: MODEL,
    input: CAPITAL,
    temperature: 0,
    text: { format: zodTextFormat(Capital, "capital") },
  });
  return Capital.parse(found.output_parsed);
});

feature("clear errors", "embeddings", () =>
  raises(() => client.embeddings.create({ model: MODEL, input: "富士山" }), "404", EMBEDDINGS),
);

feature("clear errors", "another model", () =>
  raises(
    () => client.chat.completions.create({ model: "gpt-4o", messages: user }),
    "404",
    "gpt-4o",
    MODEL,
  ),
);

feature("clear errors", "request id", async () => {
  const { request_id } = await ask().withResponse();
  expect(request_id, request_id);
  return request_id;
});

await report("openai");
