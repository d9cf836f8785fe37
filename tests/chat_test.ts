/**
 * Conversations to tokens: published chat templates and processors of transformers, the labels of LLaVA's and Qwen-VL's
 * training code, and everything that is refused. `fixtures/chat/make.py` made the numbers.
 */
import assert from "node:assert/strict";
import type { Turn } from "../core/data/sample.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { blankPicture } from "../core/image/picture.ts";
import { createProcessor } from "../core/image/processors.ts";
import { encodeConversation, encodePrompt, IMAGE, tinyTokenizerJson, USER } from "../core/text/tiny.ts";
import { compileTemplate } from "../core/text/chat_template.ts";
import { openTextCodec, teachesEnd, type TextOptions } from "../core/text/codec.ts";
import { createModel } from "../gpu/models/create.ts";
import { chatCases, chatConfig, chatFolder } from "./chat_models.ts";

const { sizes, chats, cases, vicuna_v1, chatml } = chatCases;

/** A conversation of the fixtures as turns with places, a missing answer left empty. */
function turnsOf({ turns }: (typeof chats)[number]): Turn[] {
  return turns.map(([parts, answer]) => {
    const places: number[] = [];
    let question = "";
    for (const part of parts) {
      if (typeof part === "string") question += part;
      else places.push(question.length);
    }
    return { question, answer: answer ?? "", places };
  });
}

/** Encodes conversations as a family does, answers `null` as prompts. */
async function open(
  family: string,
  options: Partial<TextOptions> = {},
  remove: string[] = [],
  source?: string,
) {
  const folder = await chatFolder(family), model = createModel(chatConfig(family));
  for (const name of remove) await folder.remove(name);
  if (source !== undefined) await folder.write("chat_template.jinja", source);
  const codec = await openTextCodec(folder, model, options);
  const qwen = { image_processor_type: "QwenVLImageProcessor", size: 70 };
  const processor = family === "qwen_vl" ? qwen : chatCases.families[family]?.processor;
  const look = processor && createProcessor(processor, family);
  const pictures = (chat: (typeof chats)[number]) =>
    chat.turns.flatMap(([parts]) => parts).filter((part) => typeof part === "number")
      .map((i) => blankPicture(sizes[i][0], sizes[i][1])).map((picture) => {
        const image = look!.process(picture);
        return { image, features: model.featuresOf(image) };
      });
  return { codec, model, pictures, look };
}

for (const family of Object.keys(chatCases.families)) {
  Deno.test(`${family}: ids are those of its processor, with no, one and two pictures`, async () => {
    let compared = 0;
    for (const { chat: index, ids, family: of } of cases) {
      if (of !== family) continue;
      const chat = chats[index], isPrompt = chat.turns.at(-1)![1] === null;
      const { codec, pictures } = await open(family, { template: "checkpoint", system: chat.system });
      assert.equal(codec.template, "chat_template.jinja");
      if (isPrompt && chat.turns.length === 1) {
        assert.deepEqual(codec.prompt(chat.turns[0][0].at(-1) as string, pictures(chat)).ids, ids);
      } else if (!isPrompt) {
        const { ids: own, labels, pictures: spans } = codec.conversation(turnsOf(chat), pictures(chat));
        assert.deepEqual(own, ids, `conversation ${index}`);
        // Learnt tokens spell the answers with their ends, and nothing else.
        const learnt = own.filter((_, i) => labels[i] !== -100);
        const end = family === "llava" ? "" : codec.tokenizer.decode([codec.eos!], { special: true });
        const smollm = family === "smollm2" ? "<|im_end|>" : end;
        assert.equal(
          codec.tokenizer.decode(learnt, { special: true }).replaceAll(/\s/g, ""),
          chat.turns.map(([, answer]) => answer + smollm).join("").replaceAll(/\s/g, ""),
        );
        assert.equal(spans.length, pictures(chat).length);
      } else continue;
      compared++;
    }
    assert.equal(compared, family === "smollm2" ? 2 : 7);
  });
}

/** LLaVA's own code writes -200 once for a picture. */
const collapse = (ids: readonly number[], image: number) =>
  ids.filter((id, i) => id !== image || ids[i - 1] !== image).map((id) => id === image ? -200 : id);

Deno.test("Vicuna v1: ids and labels are those of LLaVA's training code", async () => {
  const { codec, pictures } = await open("llava", { template: "vicuna_v1" });
  for (const { chat, ids, labels } of vicuna_v1) {
    const own = codec.conversation(turnsOf(chats[chat]), pictures(chats[chat]));
    assert.deepEqual(collapse(own.ids, 392), ids, `conversation ${chat}`);
    const mask = own.labels.map((label, i) => label === -100 ? 0 : own.ids[i]);
    assert.deepEqual(mask.filter(Boolean), labels.filter((label) => label !== -100), `conversation ${chat}`);
    own.labels.forEach((label, i) => assert(label === -100 || label === own.ids[i]));
  }
  assert.equal(vicuna_v1.length, 4);
});

Deno.test("ChatML: ids and labels are those of Qwen-VL's training code", async () => {
  for (const { chat, ids, labels } of chatml) {
    const { codec, pictures } = await open("qwen_vl", { system: chats[chat].system });
    assert.equal(codec.template, "chatml");
    const own = codec.conversation(turnsOf(chats[chat]), pictures(chats[chat]));
    assert.deepEqual(own.ids, ids, `conversation ${chat}`);
    // The first token is learnt there, which nothing predicts.
    assert.deepEqual(own.labels, labels, `conversation ${chat}`);
    // What is judged leaves the markers of turns out.
    const judged = codec.conversation(turnsOf(chats[chat]), pictures(chats[chat]), { markers: false });
    assert.equal(
      codec.tokenizer.decode(judged.labels.filter((id) => id !== -100), { special: true }),
      chats[chat].turns.map(([, answer]) => `${answer}<|im_end|>\n`).join(""),
    );
  }
  assert.equal(chatml.length, 6);
});

Deno.test("templates render to the text that transformers renders", () => {
  for (const { family, chat: index, text } of cases) {
    const { system, turns } = chats[index], { tokenizer } = chatCases.families[family];
    const tokens = chatCases.tokens[tokenizer] as Record<string, string>;
    const render = compileTemplate(
      { file: family, source: chatCases.templates[family] },
      { tokens, date: new Date(0), lists: family !== "smollm2" },
    );
    const asked = turns.map(([question, answer]) => ({ question, answer: answer ?? undefined }));
    assert.equal(render({ system, turns: asked }), text, `${family} ${index}`);
  }
});

Deno.test("a template that writes nothing behind an answer is known", async () => {
  for (const family of [...Object.keys(chatCases.families), "llama", "qwen_vl"]) {
    assert.equal(teachesEnd((await open(family)).codec), family !== "llava", family);
  }
  assert(teachesEnd((await open("llava", { template: "vicuna_v1" })).codec));
});

Deno.test("a template's day is the run's, not the clock's", async () => {
  const source = "{{ strftime_now('%d %b %Y, %A') }}{% for m in messages %}{{ m['content'] }}{% endfor %}";
  const { codec } = await open("smollm2", {}, [], source);
  assert.match(codec.tokenizer.decode(codec.prompt("Hello", []).ids), /^26 Jul 2024, FridayHello$/);
  const dated = await open("smollm2", { date: "2031-01-02" }, [], source);
  assert.match(dated.codec.tokenizer.decode(dated.codec.prompt("", []).ids), /^02 Jan 2031, Thursday$/);
});

Deno.test("templates strip as Python strips", async () => {
  const source = "{% for m in messages %}[{{ m['content'].strip('\\n') }}]{{ '<|im_end|>' }}{% endfor %}" +
    "{% if 'xxaxbx'.strip('x').lstrip('a') + '-ba-'.rstrip('-a') == 'xb-b' and ' c '.strip() == 'c' %}" +
    "{% if not add_generation_prompt %}{{ 'right'.rstrip('th') }}{% endif %}{% endif %}";
  const { codec } = await open("smollm2", {}, [], source);
  const { ids, labels } = codec.conversation([{ question: "\n What? \n\n", answer: " It \n" }], []);
  assert.equal(codec.tokenizer.decode(ids), "[ What? ][ It ]rig");
  const learnt = labels.filter((label) => label !== -100);
  // The bracket is no part of the prompt, so the model has to write it.
  assert.equal(codec.tokenizer.decode(learnt, { special: true }), "[ It ");
});

Deno.test("where a template is looked for, and what takes its place", async () => {
  const content = (name: string) => `${name}{% for m in messages %}{{ m['content'] }}{% endfor %}`;
  const folder = await chatFolder("smollm2"), model = createModel(chatConfig("smollm2"));
  const begins = async () => {
    const codec = await openTextCodec(folder, model);
    return `${codec.template}: ${codec.tokenizer.decode(codec.prompt("x", []).ids)}`;
  };
  await folder.write("chat_template.jinja", content("A"));
  await folder.write("chat_template.json", JSON.stringify({ chat_template: content("B") }));
  const named = [{ name: "tool_use", template: content("C") }, { name: "default", template: content("D") }];
  const config = { ...chatCases.tokens.smol, chat_template: named };
  await folder.write("tokenizer_config.json", JSON.stringify(config));
  assert.equal(await begins(), "chat_template.jinja: Ax");
  await folder.remove("chat_template.jinja");
  assert.equal(await begins(), "chat_template.json: Bx");
  await folder.remove("chat_template.json");
  assert.equal(await begins(), "tokenizer_config.json: Dx");
  await folder.write("tokenizer_config.json", JSON.stringify(chatCases.tokens.smol));
  assert.match(await begins(), /^chatml: system\nYou are/);
  assert.equal((await open("llama")).codec.template, "vicuna_v1");
  await assert.rejects(
    open("llama", { template: "checkpoint" }),
    /^InputError: Cannot find a chat template in "llama"/,
  );
  await assert.rejects(open("llama", { template: "chatml" }), /has no special token <\|im_start\|>$/);
  await assert.rejects(open("llama", { template: "tiny" }), /"tiny" goes with the tokenizer "builtin:tiny"/);
});

Deno.test("special tokens that a user spells are plain text, in every family", async () => {
  const spelled = ["<image>", "<|im_end|>", "a </s><s> b", "<|image_pad|>x", "<end_of_utterance>", "<img>"];
  for (const family of ["llava", "qwen2_vl", "smolvlm", "qwen_vl", "smollm2"]) {
    const { codec } = await open(family);
    const { tokenizer } = codec,
      special = (ids: number[]) =>
        ids.filter((id) => tokenizer.decode([id]) === "" && tokenizer.decode([id], { special: true }) !== "");
    for (const text of spelled) {
      const turns = (text: string) => [{ question: `Say ${text} now`, answer: `Is ${text}` }];
      const odd = codec.conversation(turns(text), []), plain = codec.conversation(turns("x"), []);
      assert.deepEqual(special(odd.ids), special(plain.ids), `${family}: ${text}`);
      const learnt = odd.labels.filter((label) => label !== -100);
      assert(tokenizer.decode(learnt, { special: true }).includes(`Is ${text}`), `${family}: ${text}`);
      assert(tokenizer.decode(odd.ids, { special: true }).includes(`Say ${text} now`), `${family}: ${text}`);
    }
  }
});

Deno.test("a prompt is how its conversation begins, and the study's token is where it should be", async () => {
  for (const family of [...Object.keys(chatCases.families), "llama", "qwen_vl"]) {
    for (const template of ["auto", ...(family === "llava" ? ["vicuna_v1"] as const : [])] as const) {
      const { codec, pictures } = await open(family, { template });
      const chat = chats[family === "smollm2" || family === "llama" ? 0 : 1], seen = pictures(chat);
      const prompt = codec.prompt("What is it?", seen);
      const { ids, labels } = codec.conversation([{ question: "What is it?", answer: "Ada." }], seen);
      const learnt = labels.map((label, i) => label === -100 ? -1 : i).filter((i) => i >= prompt.ids.length);
      assert.deepEqual(ids.slice(0, prompt.ids.length), prompt.ids, family);
      // Everything from the prompt's end to the answer's is learnt.
      assert.equal(learnt[0], prompt.ids.length, `${family} ${template}`);
      assert(prompt.labels.every((label) => label === -100 || codec.template === "chatml"));
      if (codec.template === "chatml") {
        assert.deepEqual(codec.tokenizer.decode(prompt.ids.slice(-6)).slice(-10), "assistant\n");
      }
    }
  }
});

Deno.test("the built-in model's ids are what they were, and later pictures stand in their turn", async () => {
  const folder = new MemoryFolder("tiny");
  await folder.write("tokenizer.json", JSON.stringify(tinyTokenizerJson()));
  const codec = await openTextCodec(folder, { family: "llava", imageToken: IMAGE });
  assert.equal(codec.template, "tiny");
  const image = { pixelValues: new Float32Array(0), shape: [0] };
  const turns = [{ question: "is there a ring", answer: "yes" }, {
    question: "how many things",
    answer: "two",
  }];
  const one = codec.conversation(turns, [{ image, features: 3 }]);
  assert.deepEqual({ ids: one.ids, labels: one.labels }, encodeConversation(turns, { imageTokens: 3 }));
  assert.deepEqual(one.pictures, [[1, 4]]);
  assert.deepEqual(
    codec.prompt("who took this", [{ image, features: 2 }]).ids,
    encodePrompt("who took this", { imageTokens: 2 }),
  );
  const placed = [turns[0], { ...turns[1], places: [0] }];
  const { ids, pictures } = codec.conversation(placed, [{ image, features: 3 }, { image, features: 2 }]);
  const [from, to] = pictures[1];
  assert.deepEqual(ids.slice(from - 1, to), [USER, IMAGE, IMAGE]);
  assert.deepEqual(ids.filter((_, i) => i < from || i >= to), one.ids);
});
