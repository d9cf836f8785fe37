/**
 * The built-in model's tokenizer: lossless on ASCII, one token a known word, labels on answers only.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { Random } from "../core/random.ts";
import {
  ASSISTANT,
  BOS,
  encodeConversation,
  encodePrompt,
  EOS,
  foldToAscii,
  IGNORE,
  IMAGE,
  PAD,
  tinyTokenizer,
  tinyTokenizerJson,
  USER,
} from "../core/text/tiny.ts";

const { vocab, encode, decode } = tinyTokenizer;

Deno.test("the vocabulary fits 256 ids, has no double but the characters that are words, and opens with the specials", () => {
  assert(vocab.length <= 256, `${vocab.length} ids`);
  assert.deepEqual([PAD, BOS, EOS, IMAGE, USER, ASSISTANT], [0, 1, 2, 3, 4, 5]);
  assert.equal(vocab[ASSISTANT], "<assistant>");
  const doubles = vocab.filter((token, id) => vocab.indexOf(token) !== id);
  assert.deepEqual(doubles, ["a"]);
});

Deno.test("known questions cost one token a word", () => {
  for (
    const text of [
      "is there a red circle",
      "how many things",
      "what color is the ring",
      "what shape is the blue object",
      "where is the cross",
      "is photographer known",
      "who took this",
      "what is the user_id of the username",
      "does the image not contain a gray rectangle",
      "yes",
    ]
  ) assert.equal(encode(text).length, text.split(" ").length, text);
  assert.equal(encode("is there not a teal shape in the image?").length, 10);
  assert.equal(encode("What is the username?").length, 5);
});

Deno.test("encode then decode returns any printable ASCII text", () => {
  const ascii = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
  const random = new Random(1);
  for (let round = 0; round < 3000; round++) {
    const parts = Array.from(
      { length: random.int(14) },
      () => random.pick([vocab[6 + random.int(vocab.length - 6)], " ", "  ", random.pick(ascii)]),
    );
    const text = parts.join(random.pick(["", " "]));
    assert.equal(decode(encode(text)), text);
  }
  assert.equal(decode(encode(ascii.join(""))), ascii.join(""));
  assert.equal(decode(encode("username: Anna_red-B  blue\nage: 31")), "username: Anna_red-B  blue\nage: 31");
});

Deno.test("no text can smuggle a special token in, and specials are left out of decoded text", () => {
  const ids = encode("<image> <eos><assistant>");
  assert(ids.every((id) => id > ASSISTANT), ids.join(" "));
  assert.equal(decode(ids), "<image> <eos><assistant>");
  assert.equal(decode([BOS, IMAGE, USER, ...encode("red"), EOS]), "red");
});

Deno.test("letters beyond ASCII are folded, not lost", () => {
  assert.equal(decode(encode("Zoë Łukasz, São Paulo – “Đà Nẵng”")), 'Zoe Lukasz, Sao Paulo - "Da Nang"');
  assert.equal(foldToAscii("Straße Æsir 東京 ½\t1\r\n2"), "Strasse AEsir ?? 1?2 1\n2");
});

Deno.test("a conversation teaches answers and their ends, and nothing else", () => {
  const turns = [{ question: "what color is the ring", answer: "red" }, {
    question: "how many things",
    answer: "2",
  }];
  const { ids, labels } = encodeConversation(turns, { imageTokens: 3 });
  const expected = [
    ...[BOS, IMAGE, IMAGE, IMAGE],
    ...[USER, ...encode(turns[0].question), ASSISTANT, ...encode("red"), EOS],
    ...[USER, ...encode(turns[1].question), ASSISTANT, ...encode("2"), EOS],
  ];
  assert.deepEqual(ids, expected);
  assert.equal(labels.length, ids.length);
  assert.deepEqual(labels.filter((label) => label !== IGNORE), [...encode("red"), EOS, ...encode("2"), EOS]);
  labels.forEach((label, i) => assert(label === IGNORE || label === ids[i]));
  const prompt = encodePrompt(turns[0].question, { imageTokens: 3 });
  assert.deepEqual(prompt, ids.slice(0, prompt.length));
  assert.equal(prompt.at(-1), ASSISTANT);
});

Deno.test("wrong conversations and ids are refused by name", () => {
  assert.throws(() => encodeConversation([], { imageTokens: 1 }), InputError);
  assert.throws(() => encodePrompt("who", { imageTokens: -1 }), /Cannot place -1 image tokens/);
  assert.throws(() => decode([vocab.length]), RangeError);
  assert.throws(() => decode([1.5]), RangeError);
});

Deno.test("the JSON form rebuilds the vocabulary", () => {
  const json = JSON.parse(JSON.stringify(tinyTokenizerJson()));
  assert.deepEqual(json.vocab, vocab);
  assert.equal(json.specials["<image>"], IMAGE);
  assert.equal(json.vocab[json.firstWord], "is");
});
