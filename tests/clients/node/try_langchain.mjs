// LangChain for JavaScript, as https://docs.langchain.com/oss/javascript shows ChatOpenAI.

import { AIMessage, HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from "@langchain/openai";
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

const where = { apiKey: KEY, configuration: { baseURL: BASE_URL }, maxRetries: 0 };
const llm = new ChatOpenAI({ model: MODEL, temperature: 0, ...where });
const byResponses = new ChatOpenAI({ model: MODEL, temperature: 0, useResponsesApi: true, ...where });
const Capital = z.object({ capital: z.enum(CITIES) });
const highestMountain = tool(() => ANSWER, {
  name: "highest_mountain",
  description: "国で一番高い山を調べる。",
  schema: z.object({ country: z.enum(["日本", "中国"]) }),
});

function called(message) {
  const [call] = message.tool_calls;
  expect(call.name === "highest_mountain" && ["日本", "中国"].includes(call.args.country), message);
  return call.args;
}

feature("chat", "", async () => contains((await llm.invoke(QUESTION)).content));

feature("chat", "prompt.pipe(model).pipe(parser)", async () => {
  const prompt = ChatPromptTemplate.fromMessages([
    ["system", "{role}"],
    ["human", "{question}"],
  ]);
  const chain = prompt.pipe(llm).pipe(new StringOutputParser());
  return contains(await chain.invoke({ role: ROLE, question: QUESTION }), "なのだ");
});

feature("stream", "", async () => {
  const texts = [];
  for await (const chunk of await llm.stream(QUESTION)) texts.push(chunk.content);
  expect(texts.length > 2, texts);
  return contains(texts.join(""));
});

feature("batch", "", async () => {
  const texts = (await llm.batch([QUESTION, CAPITAL])).map((found) => found.content);
  contains(texts[0]);
  return texts;
});

feature("system", "", async () =>
  contains((await llm.invoke([new SystemMessage(ROLE), new HumanMessage(QUESTION)])).content, "なのだ"),
);

feature("history", "", async () => {
  const said = await llm.invoke(QUESTION);
  const found = await llm.invoke([new HumanMessage(QUESTION), said, new HumanMessage(FIRST)]);
  return contains(found.content, QUESTION);
});

feature("sampling", "", async () => {
  const made = new ChatOpenAI({ model: MODEL, maxTokens: 30, stop: ["富士"], topP: 0.5, ...where });
  const { content } = await made.invoke(QUESTION);
  expect(content === "日本で一番高い山は", content);
  return content;
});

feature("usage", "", async () => {
  const { usage_metadata } = await llm.invoke(QUESTION);
  expect(usage_metadata.output_tokens > 0, usage_metadata);
  return usage_metadata;
});

feature("usage", "stream", async () => {
  let whole;
  for await (const chunk of await llm.stream(QUESTION)) whole = whole ? whole.concat(chunk) : chunk;
  expect(whole.usage_metadata.output_tokens > 0, whole);
  return whole.usage_metadata;
});

feature("logprobs", "", async () => {
  const made = new ChatOpenAI({ model: MODEL, logprobs: true, topLogprobs: 2, ...where });
  const { content } = (await made.invoke(QUESTION)).response_metadata.logprobs ?? {};
  expect(content?.length > 2, content);
  return content[0];
});

feature("JSON schema", "withStructuredOutput", async () =>
  Capital.parse(await llm.withStructuredOutput(Capital).invoke(CAPITAL)),
);

feature("JSON object", "withStructuredOutput, jsonMode, any object", async () => {
  const made = llm.withStructuredOutput(z.object({}), { name: "any", method: "jsonMode" });
  const found = await made.invoke(CAPITAL);
  expect(typeof found === "object", found);
  return found;
});

feature("tool named", "withStructuredOutput, functionCalling", async () => {
  const made = llm.withStructuredOutput(Capital, { name: "capital", method: "functionCalling" });
  return Capital.parse(await made.invoke(CAPITAL));
});

feature("tool named", "bindTools", async () => {
  const bound = llm.bindTools([highestMountain], { tool_choice: "highest_mountain" });
  return called(await bound.invoke(QUESTION));
});

feature("tool required", "bindTools", async () => {
  const bound = llm.bindTools([highestMountain], { tool_choice: "any" });
  return called(await bound.invoke(QUESTION));
});

feature("tool streamed", "bindTools", async () => {
  const bound = llm.bindTools([highestMountain], { tool_choice: "required" });
  let whole;
  for await (const chunk of await bound.stream(QUESTION)) {
    whole = whole ? whole.concat(chunk) : chunk;
  }
  return called(whole);
});

feature("tool result", "", async () => {
  const call = { name: "highest_mountain", args: { country: "日本" }, id: "call_1", type: "tool_call" };
  const { content } = await llm.bindTools([highestMountain]).invoke([
    new HumanMessage(QUESTION),
    new AIMessage({ content: "", tool_calls: [call] }),
    new ToolMessage({ content: ANSWER, tool_call_id: "call_1" }),
  ]);
  expect(content.trim(), content);
  return content;
});

feature("tool auto", "", async () => called(await llm.bindTools([highestMountain]).invoke(QUESTION)), AUTO);

feature("tool auto", "answered in text", async () =>
  contains((await llm.bindTools([highestMountain]).invoke(QUESTION)).content),
);

feature("completions", "", async () => {
  const made = new OpenAI({ model: MODEL, temperature: 0, maxTokens: 8, ...where });
  const text = await made.invoke("日本で一番高い山は");
  expect(text, text);
  return text;
});

feature("responses", "", async () => contains((await byResponses.invoke(QUESTION)).text));

feature("responses", "stream", async () => {
  let text = "";
  for await (const chunk of await byResponses.stream(QUESTION)) text += chunk.text;
  return contains(text);
});

feature("responses", "withStructuredOutput", async () =>
  Capital.parse(await byResponses.withStructuredOutput(Capital).invoke(CAPITAL)),
);

feature("clear errors", "embeddings", () =>
  raises(() => new OpenAIEmbeddings({ model: MODEL, ...where }).embedQuery("富士山"), EMBEDDINGS),
);

feature("clear errors", "another model", () =>
  raises(() => new ChatOpenAI({ model: "gpt-4o", ...where }).invoke(QUESTION), "gpt-4o", MODEL),
);

await report("@langchain/openai");
