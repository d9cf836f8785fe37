/**
 * From records and pictures on a disk to trained adapters, answers and activations, for every family at once: what
 * encoding refuses by a sample's name, and that a run's own template is used with it.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { samplesToLlava } from "../core/data/llava.ts";
import { pack } from "../core/data/pack.ts";
import type { Sample } from "../core/data/sample.ts";
import { InputError } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import type { LoraConfig } from "../core/formats/peft.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { openGpu } from "../gpu/device.ts";
import { evaluate } from "../gpu/evaluate.ts";
import { extract } from "../gpu/extract.ts";
import { openRun, openSession, writeTrained } from "../gpu/session.ts";
import { train, trainSchema } from "../gpu/train.ts";
import { openDataset } from "../scripts/dataset.ts";
import { cachedSamples } from "../scripts/train.ts";
import { chatCheckpoint } from "./chat_models.ts";

const gpu = await openGpu();
const LORA = { r: 2, lora_alpha: 4, lora_dropout: 0, target_modules: "all-linear", use_rslora: false };
const FAMILIES = ["llama", "llava", "qwen_vl", "qwen2_vl", "qwen2_5_vl", "smolvlm", "idefics3"];
const SEEING = FAMILIES.slice(1);

/** Records with no, one and two pictures, the second one in a later turn. */
async function withData(
  family: string,
  test: (data: string, images: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    const samples: Sample[] = [
      { id: "text", images: [], turns: [{ question: "Who is it?", answer: "Ada" }] },
      { id: "one", images: ["a.png"], turns: [{ question: "Where?", answer: "Paris" }] },
      {
        id: "two",
        images: ["a.png", "b.png"],
        turns: [
          { question: "Who?", answer: "Ada" },
          { question: "And here:", answer: "Bob", places: [9] },
        ],
      },
    ];
    for (const [name, width, height] of [["a.png", 60, 60], ["b.png", 90, 40]] as const) {
      const picture = blankPicture(width, height);
      picture.data.forEach((_, i) => picture.data[i] = (i * 37) % 256);
      await Deno.writeFile(join(root, name), await encodeImage(picture, "png"));
    }
    const used = SEEING.includes(family) ? samples : samples.slice(0, 1);
    await Deno.writeTextFile(join(root, "data.json"), JSON.stringify(samplesToLlava(used)));
    await test(join(root, "data.json"), root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

for (const family of FAMILIES) {
  Deno.test(`${family}: records and pictures to adapters, answers and activations`, () =>
    withData(family, async (data, images) => {
      const base = await chatCheckpoint(family), dataset = await openDataset(data, images);
      const lora: LoraConfig = { ...LORA };
      const session = await openSession(gpu, base, { lora });
      const sample = cachedSamples(dataset, session.encoder), count = dataset.samples.length;
      const config = trainSchema.parse({
        steps: 3,
        batchSize: count,
        lr: 1e-3,
        warmup: 0,
        schedule: "constant",
      });
      const metrics = await train({ gpu, model: session.model, slabs: session.slabs, config, count, sample });
      assert.equal(metrics.length, 3);
      assert(metrics[2].loss < metrics[0].loss, metrics.map(({ loss }) => loss).join(" "));

      const judged = cachedSamples(dataset, session.encoder, "judge");
      const samples = await Promise.all(dataset.samples.map((_, i) => judged(i)));
      const { right } = await evaluate(gpu, session.model, samples);
      assert.deepEqual(right.map(({ length }) => length), dataset.samples.map(({ turns }) => turns.length));

      const pictures = SEEING.includes(family) ? await dataset.pictures(dataset.samples[1]) : [];
      const reductions = ["index:-2", "last", "mean", ...(pictures.length ? ["image-mean"] : [])];
      const found = await extract(
        gpu,
        session.model,
        1,
        () => session.encoder.ask("asked", "Who?", pictures),
        reductions.map((reduction) => ({ site: "layers.*.resid_post", reduction })),
      );
      assert.equal(found.size, reductions.length * session.model.decoder.blocks.length);
      for (const { data } of found.values()) assert(data.every(Number.isFinite));
      session.close();
    }));
}

Deno.test("a run is opened with the template and the system prompt it was trained with", async () => {
  const base = await chatCheckpoint("llava"), lora: LoraConfig = { ...LORA };
  const text = { template: "vicuna_v1", system: "Be brief." } as const;
  const tuned = await openSession(gpu, base, { lora, text }), run = new MemoryFolder("run");
  await writeTrained(tuned, run, "llava");
  await writeManifest(run, { kind: "run", parents: { model: tuned.hash }, config: { lora, ...text } });
  const asked = (session: typeof tuned) => session.encoder.text.decode(session.encoder.ask("q", "Who?").ids);
  const opened = await openRun(gpu, base, run);
  assert.equal(asked(opened), "Be brief. USER: Who? ASSISTANT:");
  const other = await openRun(gpu, base, run, undefined, { template: "checkpoint", system: "Speak." });
  assert.equal(asked(other).trim(), "Speak. USER: Who? ASSISTANT:");
  for (const session of [tuned, opened, other]) session.close();
});

Deno.test("what cannot be encoded is refused by the sample's name", async () => {
  const picture = blankPicture(60, 60), turns = [{ question: "Who is it?", answer: "Ada Lovelace" }];
  const open = (family: string, maxLength?: number) =>
    chatCheckpoint(family).then((base) => openSession(gpu, base, { text: { maxLength } }));
  const refused = (encode: () => unknown, message: RegExp) =>
    assert.throws(encode, (error) => {
      assert(error instanceof InputError, String(error));
      assert.match(error.message, message);
      return true;
    });

  const whole = await open("qwen2_vl"), { encoder } = whole;
  const one = encoder.train("one", turns, [picture]), length = one.ids.length;
  const first = one.ids.indexOf(305), last = one.ids.lastIndexOf(305);
  refused(
    () => encoder.train("places", [{ question: "ab", answer: "c", places: [1, 1] }], [picture]),
    /^Cannot encode sample "places": Cannot place 2 pictures in a conversation: it has 1$/,
  );
  refused(() => encoder.train("none", []), /^Cannot encode sample "none": it has no turn$/);
  whole.close();

  const inside = await open("qwen2_vl", first + 2);
  refused(
    () => inside.encoder.train("one", turns, [picture]),
    new RegExp(
      `^Cannot encode sample "one": its ${length} tokens are over the limit of ${
        first + 2
      }, which lies inside picture 1`,
    ),
  );
  // A prompt is never cut.
  assert(inside.encoder.ask("q", "Who?", [picture]).ids.length > first + 2);
  inside.close();
  const before = await open("qwen2_vl", last + 4);
  refused(() => before.encoder.train("one", turns, [picture]), /before which no token is supervised$/);
  before.close();
  const cut = await open("qwen2_vl", length - 3);
  const shorter = cut.encoder.train("one", turns, [picture]);
  assert.deepEqual(shorter.ids, one.ids.slice(0, -3));
  assert.deepEqual(shorter.labels, one.labels.slice(0, -3));
  // A picture beyond the cut goes with its tokens.
  const later = [...turns, { question: "And?", answer: "Bob", places: [0] }];
  const two = cut.encoder.train("two", later, [picture, picture]);
  assert.deepEqual([two.ids.length, two.images.length], [length - 3, 1]);
  pack([two], { imageToken: cut.model.imageToken, featuresOf: (image) => cut.model.featuresOf(image) });
  cut.close();

  const blind = await open("llama");
  refused(
    () => blind.encoder.train("seen", turns, [picture]),
    /^Cannot encode sample "seen": it has a picture, the model no preprocessor_config\.json$/,
  );
  blind.close();

  const base = await chatCheckpoint("llava");
  await base.write(
    "chat_template.jinja",
    "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}",
  );
  const deaf = await openSession(gpu, base);
  refused(
    () => deaf.encoder.train("lost", turns, [picture]),
    /^Cannot encode sample "lost": the chat template writes 0 pictures, expected 1$/,
  );
  deaf.close();
  await base.write("chat_template.jinja", "{{ messages[0]['content'][0]['text'] | upper }}");
  const loud = await openSession(gpu, base);
  refused(
    () => loud.encoder.ask("loud", "Who?"),
    /"loud": the chat template changes, repeats or leaves out a text/,
  );
  loud.close();
  await base.write("chat_template.jinja", "{{ raise_exception('No system prompts') }}");
  const raising = await openSession(gpu, base);
  refused(
    () => raising.encoder.ask("q", "Who?"),
    /chat template of "llava\/chat_template\.jinja": No system prompts/,
  );
  raising.close();

  const config = JSON.parse(new TextDecoder().decode(await base.read("config.json")));
  await base.write("config.json", JSON.stringify({ ...config, image_token_id: 300 }));
  const used = gpu.pool.usedBytes;
  await assert.rejects(
    openSession(gpu, base),
    /Cannot use "llava": its tokenizer gives <image> the id 392, its config\.json 300/,
  );
  assert.equal(gpu.pool.usedBytes, used, "a refused checkpoint leaves buffers behind");
});
