// What a program does with OpenAI's client: node openai_client.mjs http://127.0.0.1:8000/v1; prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Which function does load call?" }];
const asked = { model: "demo", messages, temperature: 0 };
const told = {};

told.models = (await client.models.list()).data.map((model) => model.id);
told.retrieved = (await client.models.retrieve("demo:plain")).id;

const whole = await client.chat.completions.create(asked);
told.chat = whole.choices[0].message.content;
told.citations = whole.citations;
told.usage = whole.usage.completion_tokens;

told.streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  told.streamed += chunk.choices[0]?.delta?.content ?? "";
}
const helper = client.chat.completions.stream(asked);
told.helped = (await helper.finalChatCompletion()).choices[0].message.content;

const left = await client.chat.completions.create({ ...asked, stream: true, max_tokens: 400 });
told.pieces_before_leaving = 0;
for await (const _ of left) if (++told.pieces_before_leaving === 2) break;

told.completed = (await client.completions.create({ model: "demo", prompt: "def load(", max_tokens: 4 })).choices[0].finish_reason;

const response = { model: "demo", input: messages[0].content, temperature: 0 };
told.response = (await client.responses.create(response)).output_text;
told.response_streamed = "";
for await (const event of await client.responses.create({ ...response, stream: true })) {
  if (event.type === "response.output_text.delta") told.response_streamed += event.delta;
}

told.errors = {};
for (const [what, body] of Object.entries({
  model: { ...asked, model: "gpt-4" },
  temperature: { ...asked, temperature: 3 },
  tool: { ...asked, tools: [], tool_choice: { type: "function", function: { name: "f" } } },
})) {
  await client.chat.completions.create(body).catch((error) => {
    told.errors[what] = [error.constructor.name, error.code, error.param];
  });
}
console.log(JSON.stringify(told));
