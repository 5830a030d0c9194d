// Vercel's AI SDK with its OpenAI-compatible provider, as https://ai-sdk.dev shows it.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embed, generateText, stepCountIs, streamText, tool } from "ai";
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

const provider = createOpenAICompatible({
  name: "issun",
  baseURL: BASE_URL,
  apiKey: KEY,
  supportsStructuredOutputs: true,
  includeUsage: true,
});
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: KEY });
const capital = z.object({ capital: z.enum(CITIES) });
const tools = {
  highest_mountain: tool({
    description: "国で一番高い山を調べる。",
    inputSchema: z.object({ country: z.enum(["日本", "中国"]) }),
    execute: async () => ANSWER,
  }),
};
const base = { model: provider(MODEL), temperature: 0, maxRetries: 0 };
const unexecuted = { highest_mountain: { ...tools.highest_mountain, execute: undefined } };

function called(found) {
  const [call] = found;
  expect(call.toolName === "highest_mountain", found);
  expect(["日本", "中国"].includes(call.input.country), found);
  return call.input;
}

feature("chat", "", async () => contains((await generateText({ ...base, prompt: QUESTION })).text));

feature("chat", "createOpenAI().chat", async () => {
  const found = await generateText({ ...base, model: openai.chat(MODEL), prompt: QUESTION });
  return contains(found.text);
});

feature("stream", "", async () => {
  const texts = [];
  for await (const text of streamText({ ...base, prompt: QUESTION }).textStream) texts.push(text);
  expect(texts.length > 2, texts);
  return contains(texts.join(""));
});

feature("system", "", async () => {
  const found = await generateText({ ...base, system: ROLE, prompt: QUESTION });
  return contains(found.text, "なのだ");
});

feature("history", "", async () => {
  const first = await generateText({ ...base, prompt: QUESTION });
  const messages = [
    { role: "user", content: QUESTION },
    ...first.response.messages,
    { role: "user", content: FIRST },
  ];
  return contains((await generateText({ ...base, messages })).text, QUESTION);
});

feature("sampling", "", async () => {
  const asked = { stopSequences: ["富士"], maxOutputTokens: 30, seed: 1, topP: 0.5 };
  const { text, finishReason } = await generateText({ ...base, prompt: QUESTION, ...asked });
  expect(text === "日本で一番高い山は" && finishReason === "stop", { text, finishReason });
  return text;
});

feature("usage", "", async () => {
  const { usage } = await generateText({ ...base, prompt: QUESTION });
  expect(usage.outputTokens > 0, usage);
  return usage;
});

feature("usage", "stream", async () => {
  const found = streamText({ ...base, prompt: QUESTION });
  await found.consumeStream();
  const usage = await found.usage;
  expect(usage.outputTokens > 0, usage);
  return usage;
});

feature("JSON schema", "Output.object", async () => {
  const output = Output.object({ schema: capital });
  return capital.parse((await generateText({ ...base, prompt: CAPITAL, output })).output);
});

feature("JSON schema", "Output.object, stream", async () => {
  const output = Output.object({ schema: capital });
  const found = streamText({ ...base, prompt: CAPITAL, output });
  await found.consumeStream();
  return capital.parse(await found.output);
});

feature("JSON schema", "Output.array", async () => {
  const output = Output.array({ element: capital });
  const found = (await generateText({ ...base, prompt: CAPITAL, output })).output;
  expect(Array.isArray(found), found);
  return found.slice(0, 3);
});

feature("choices", "Output.choice", async () => {
  const output = Output.choice({ options: CITIES });
  const found = (await generateText({ ...base, prompt: CAPITAL, output })).output;
  expect(CITIES.includes(found), found);
  return found;
});

feature("JSON object", "Output.json", async () => {
  const found = (await generateText({ ...base, prompt: CAPITAL, output: Output.json() })).output;
  expect(typeof found === "object", found);
  return found;
});

feature("tool named", "", async () => {
  const toolChoice = { type: "tool", toolName: "highest_mountain" };
  const asked = { tools: unexecuted, toolChoice };
  return called((await generateText({ ...base, prompt: QUESTION, ...asked })).toolCalls);
});

feature("tool required", "", async () => {
  const asked = { tools: unexecuted, toolChoice: "required" };
  return called((await generateText({ ...base, prompt: QUESTION, ...asked })).toolCalls);
});

feature("tool streamed", "", async () => {
  const asked = { tools: unexecuted, toolChoice: "required" };
  const found = streamText({ ...base, prompt: QUESTION, ...asked });
  await found.consumeStream();
  return called(await found.toolCalls);
});

feature("tool result", "two steps, the first must call", async () => {
  const found = await generateText({
    ...base,
    prompt: QUESTION,
    tools,
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "auto" }),
  });
  expect(found.steps.length === 2 && found.text.trim(), found.text);
  return found.text;
});

feature("tool auto", "", async () => {
  const found = await generateText({ ...base, prompt: QUESTION, tools: unexecuted });
  return called(found.toolCalls);
}, AUTO);

feature("tool auto", "answered in text", async () => {
  const found = await generateText({ ...base, prompt: QUESTION, tools, stopWhen: stepCountIs(3) });
  return contains(found.text);
});

feature("completions", "completionModel", async () => {
  const model = provider.completionModel(MODEL);
  const found = await generateText({ ...base, model, prompt: "日本は", maxOutputTokens: 8 });
  expect(found.usage.outputTokens > 0, found.usage); // behind "assistant:" it may be an end alone
  return found.usage;
});

feature("responses", "createOpenAI()", async () => {
  const found = await generateText({ ...base, model: openai(MODEL), prompt: QUESTION });
  return contains(found.text);
});

feature("responses", "createOpenAI(), stream", async () => {
  let text = "";
  const found = streamText({ ...base, model: openai(MODEL), system: ROLE, prompt: QUESTION });
  for await (const part of found.textStream) text += part;
  return contains(text, "なのだ");
});

feature("responses", "createOpenAI(), Output.object", async () => {
  const output = Output.object({ schema: capital });
  const found = await generateText({ ...base, model: openai(MODEL), prompt: CAPITAL, output });
  return capital.parse(found.output);
});

feature("clear errors", "embeddings", () =>
  raises(
    () => embed({ model: provider.embeddingModel(MODEL), value: "富士山", maxRetries: 0 }),
    EMBEDDINGS,
  ),
);

feature("clear errors", "another model", () =>
  raises(() => generateText({ ...base, model: provider("gpt-4o"), prompt: "?" }), "gpt-4o", MODEL),
);

await report("ai");
