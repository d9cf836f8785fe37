/**
 * Data sets in and out: LLaVA's files checked field by field, easy-VQA, image paths, the import task.
 */
import assert from "node:assert/strict";
import { readEasyVqa } from "../core/data/easy_vqa.ts";
import { readLlava, samplesToLlava, toSample } from "../core/data/llava.ts";
import { checkImagePath } from "../core/data/paths.ts";
import { readSamples } from "../core/data/records.ts";
import { personOf, questionParts } from "../core/data/sample.ts";
import { QUESTION_KINDS, syntheticItem } from "../core/data/synthetic.ts";
import { InputError } from "../core/errors.ts";
import { readManifest } from "../core/formats/manifest.ts";
import { decodeImage } from "../core/image/codecs.ts";
import { Random } from "../core/random.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { importEasyVqa, importSynthetic } from "../scripts/import.ts";
import { FIXTURES } from "./check.ts";

const human = (value: string) => ({ from: "human", value });
const gpt = (value: string) => ({ from: "gpt", value });

Deno.test("LLaVA records become samples: the image token goes, numbers as ids become text", () => {
  const records = readLlava([
    {
      id: 7,
      image: "coco/1.jpg",
      conversations: [human("<image>\nWhat?"), gpt("A."), human("Why?"), gpt("B.")],
    },
    { id: "b", image: "2.jpg", person: "ada", conversations: [human("Where?\n<image>"), gpt("Here.")] },
    { id: "c", model: "ignored", conversations: [human("Hello"), gpt("Hi")] },
  ], "data.json");
  assert.deepEqual(records.map(toSample), [
    {
      id: "7",
      images: ["coco/1.jpg"],
      turns: [{ question: "What?", answer: "A." }, { question: "Why?", answer: "B." }],
    },
    {
      id: "b",
      images: ["2.jpg"],
      people: ["ada"],
      turns: [{ question: "Where?", answer: "Here.", places: [6] }],
    },
    { id: "c", images: [], turns: [{ question: "Hello", answer: "Hi" }] },
  ]);
});

Deno.test("several pictures stand where their tokens stood, in any turn", () => {
  const [sample] = readLlava([{
    id: "a",
    image: ["1.png", "2.png", "3.png"],
    person: [null, "ada", null],
    conversations: [
      human("<image>\nIs this\n<image>\nolder? "),
      gpt("Yes."),
      human("And\n<image>"),
      gpt("No."),
    ],
  }], "x.json").map(toSample);
  assert.deepEqual(sample, {
    id: "a",
    images: ["1.png", "2.png", "3.png"],
    people: [null, "ada", null],
    turns: [
      { question: "Is this\nolder?", answer: "Yes.", places: [8] },
      { question: "And", answer: "No.", places: [3] },
    ],
  });
  assert.deepEqual(questionParts(sample.turns, 3), [[0, "Is this\n", 1, "older?"], ["And", 2]]);
  // Pictures that no turn places stand before everything else.
  assert.deepEqual(questionParts([{ question: "What?" }, { question: "", places: [0] }], 3), [
    [0, 1, "What?"],
    [2],
  ]);
  assert.throws(() => questionParts(sample.turns, 1), /Cannot place 2 pictures in a conversation: it has 1/);
  assert.equal(personOf(sample), "ada");
  assert.throws(
    () => personOf({ ...sample, people: ["ada", "bob", null] }),
    /sample "a": its images carry 2 people/,
  );
});

Deno.test("Qwen-VL's records become the same samples, and are told apart by their first turn", () => {
  const user = (value: string) => ({ from: "user", value });
  const assistant = (value: string) => ({ from: "assistant", value });
  const json = [
    {
      id: "a",
      conversations: [
        user("Picture 1: <img>x/1.png</img>\nWhat?"),
        assistant("A."),
        user("Like Picture 2: <img>2.png</img>\n?"),
        assistant("B."),
      ],
    },
    { id: 3, conversations: [user("Picture 1 of what?"), assistant("C.")] },
  ];
  assert.deepEqual(readSamples(json, "q.json"), [
    {
      id: "a",
      images: ["x/1.png", "2.png"],
      turns: [
        { question: "What?", answer: "A." },
        { question: "Like ?", answer: "B.", places: [5] },
      ],
    },
    { id: "3", images: [], turns: [{ question: "Picture 1 of what?", answer: "C." }] },
  ]);
  // As LLaVA's records, and read again: the same samples, whichever file they come from.
  const samples = readSamples(json, "q.json");
  assert.deepEqual(readSamples(samplesToLlava(samples), "l.json"), samples);
  const refused: [unknown[], RegExp][] = [
    [[user("<img>a.png</img>x"), assistant("<img>")], /"conversations\.1\.value" has <img>/],
    [[user("<img>a.png"), assistant("b")], /"conversations\.0\.value" has an unpaired <img>/],
    [[user("<img>../a.png</img>x"), assistant("b")], /"image" is no path inside/],
    [[user("a"), user("b")], /"conversations\.1\.from" is "user", expected "assistant"/],
    [[user("a"), assistant("b"), user("c")], /ends with a question/],
  ];
  for (const [conversations, message] of refused) {
    assert.throws(() => readSamples([{ id: "z", conversations }], "q.json"), message);
  }
});

Deno.test("samples written as LLaVA records read back as they were", () => {
  const samples = [0, 1, 2].map((i) => syntheticItem(new Random(1), i, QUESTION_KINDS, 4).sample);
  samples[1].people = ["someone"];
  samples[2].images.push("second.png", "third.png");
  samples[2].people = [null, "someone", null];
  samples[2].turns[1] = { question: "is this  like this", answer: "no", places: [8, 18] };
  const text = JSON.stringify(samplesToLlava(samples));
  assert.deepEqual(readLlava(JSON.parse(text), "x.json").map(toSample), samples);
});

Deno.test("a wrong record is refused with file, index, id and field", () => {
  const image = "1.jpg", fine = [human("<image>\nWhat?"), gpt("A.")];
  const cases: [unknown, RegExp][] = [
    [{ a: 1 }, /^Cannot load "d\.json": it is an object, expected a list of records$/],
    [[{ id: "a", conversations: fine.slice(0, 1) }], /record 0 \(id "a"\): "conversations"/],
    [[{ id: "a", image, conversations: fine }, null], /record 1: it: /],
    [[{ image, conversations: fine }], /record 0: "id": /],
    [[{ id: "a", image: 3, conversations: fine }], /"image": Invalid input/],
    [[{ id: "a", image, conversations: [human("<image>"), { from: "gpt" }] }], /"conversations\.1\.value": /],
    [
      [{ id: "a", image, conversations: [human("<image>"), { from: "bot", value: "" }] }],
      /"conversations\.1\.from": /,
    ],
    [
      [{ id: "a", image, conversations: [fine[1], fine[0]] }],
      /"conversations\.0\.from" is "gpt", expected "human"$/,
    ],
    [
      [{ id: "a", image, conversations: [...fine, human("More?")] }],
      /ends with a question, expected an answer$/,
    ],
    [
      [{ id: "a", image, conversations: [human("What?"), gpt("A.")] }],
      /"conversations" has 0 times <image>, expected 1, one for each "image"$/,
    ],
    [
      [{ id: "a", image, conversations: [human("<image><image>"), gpt("A.")] }],
      /"conversations" has 2 times <image>, expected 1, one/,
    ],
    [
      [{ id: "a", image, conversations: [...fine, human("<image>"), gpt("B.")] }],
      /"conversations" has 2 times <image>, expected 1, one/,
    ],
    [[{ id: "a", conversations: fine }], /has 1 times <image>, expected 0, as the record has no "image"$/],
    [[{ id: "a", image: ["1.jpg", "2.jpg"], conversations: fine }], /has 1 times <image>, expected 2, one/],
    [
      [{ id: "a", image, conversations: [fine[0], gpt("<image>")] }],
      /"conversations\.1\.value" has <image>, expected none in an answer$/,
    ],
    [
      [{ id: "a", image: [image], person: ["a", null], conversations: fine }],
      /"person" has 2 entries, expected 1, one for each "image"$/,
    ],
    [[{ id: "a", image: [], conversations: fine }], /"image": /],
    [[{ id: "a", image: "../1.jpg", conversations: fine }], /record 0 \(id "a"\): "image" is no path inside/],
  ];
  for (const [json, message] of cases) {
    assert.throws(() => readLlava(json, "d.json"), (error) => {
      assert(error instanceof InputError);
      assert.match(error.message, message);
      assert.match(error.message, /^Cannot load "d\.json": /);
      return true;
    });
  }
});

Deno.test("image paths stay inside their folder", () => {
  for (const path of ["a.png", "coco/train2017/000000033471.jpg", "a b/ü.png", "..a.png"]) {
    assert.equal(checkImagePath(path, "x"), path);
  }
  const outside = [
    "",
    "/etc/passwd",
    "../a.png",
    "a/../../b.png",
    "a//b.png",
    "./a.png",
    "a\\b.png",
    "a\0.png",
    "file:///a.png",
    "https://a/b.png",
    "C:/a.png",
    "data:image/png;base64,AA",
  ]; // deno-fmt-ignore
  for (const path of outside) assert.throws(() => checkImagePath(path, "Cannot load"), InputError, path);
});

Deno.test("easy-VQA's triples become one record an image, questions in order", () => {
  const records = readEasyVqa([["what is it?", "circle", 3], ["is it red?", "no", 5], [
    "is it blue?",
    "yes",
    3,
  ]], "q");
  assert.deepEqual(records, [
    {
      id: "easy-vqa-3",
      image: "images/3.png",
      conversations: [human("<image>\nwhat is it?"), gpt("circle"), human("is it blue?"), gpt("yes")],
    },
    { id: "easy-vqa-5", image: "images/5.png", conversations: [human("<image>\nis it red?"), gpt("no")] },
  ]);
  assert.deepEqual(readLlava(records, "q"), records);
  assert.throws(
    () => readEasyVqa([["q", "a", 1], ["q", "a", -1]], "q.json"),
    /"q\.json": record 1 is \["q","a",-1\]/,
  );
});

Deno.test("the import task writes an artifact that verifies, the same for the same seed", async () => {
  const root = await Deno.makeTempDir();
  try {
    const settings = { out: `${root}/a`, seed: 4, questions: 3, kinds: [...QUESTION_KINDS] };
    const { hash } = await importSynthetic(12, settings);
    assert.equal((await importSynthetic(12, { ...settings, out: `${root}/b` })).hash, hash);
    assert.notEqual((await importSynthetic(12, { ...settings, out: `${root}/c`, seed: 5 })).hash, hash);
    const folder = new DiskFolder(settings.out);
    const { manifest } = await readManifest(folder, "dataset", { verify: true });
    assert.equal(Object.keys(manifest.files).length, 13);
    const [record] = readLlava(
      JSON.parse(new TextDecoder().decode(await folder.read("data.json"))),
      "data.json",
    );
    const drawn = syntheticItem(new Random(4, "synthetic"), 0, QUESTION_KINDS, 3);
    assert.deepEqual(toSample(record), drawn.sample);
    assert.deepEqual((await decodeImage(await folder.read(record.image as string))).data, drawn.picture.data);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("importing easy-VQA refuses missing images by name", async () => {
  const root = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(
      `${root}/questions.json`,
      JSON.stringify([["what?", "a", 0], ["what?", "b", 1]]),
    );
    await Deno.mkdir(`${root}/images`);
    await Deno.copyFile(`${FIXTURES}/images/rgb.png`, `${root}/images/0.png`);
    await assert.rejects(
      importEasyVqa(root, `${root}/data.json`),
      /1 images are missing, first "images\/1\.png"/,
    );
    await Deno.copyFile(`${FIXTURES}/images/rgb.png`, `${root}/images/1.png`);
    assert.equal(await importEasyVqa(root, `${root}/data.json`), 2);
    assert.equal(readLlava(JSON.parse(await Deno.readTextFile(`${root}/data.json`)), "data.json").length, 2);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
