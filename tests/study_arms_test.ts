/**
 * A study's arms and cells: pairing across arms, sets that never meet, questions of the controls, edits of one or two
 * words, and names of cells that follow from content alone.
 */
import assert from "node:assert/strict";
import { paraphrase, readParaphrases } from "../core/data/paraphrase.ts";
import { createWatermarker } from "../core/privacy/mark.ts";
import { TINY_WATERMARK } from "../core/privacy/watermark.ts";
import { Random } from "../core/random.ts";
import { type ArmContext, armSample, planArm, probeScenes, studyPeople } from "../core/study/arms.ts";
import { chainsOf, planCells, shardOf, tuningOf } from "../core/study/cells.ts";
import { NAMED_ARMS, studySchema } from "../core/study/config.ts";
import { syntheticSource } from "../core/study/synthetic_source.ts";

async function context(seed = 1): Promise<ArmContext> {
  return {
    seed,
    source: syntheticSource("shapes", seed, 20, 6),
    people: studyPeople(seed, 4, 10),
    watermarker: await createWatermarker(TINY_WATERMARK),
    encoding: { format: "png", quality: 95 },
    questions: { known: "is the photographer known", who: "who took this" },
  };
}

Deno.test("arms of one seed are paired: scene, whom and where agree, only what the arm changes differs", async () => {
  const given = await context();
  for (let i = 0; i < 20; i++) {
    const [r0, r50, r100, swap] = await Promise.all(
      ["r0", "r50", "r100", "swap"].map((name) => armSample(planArm(name), given, i)),
    );
    assert.equal(r0.person, null);
    assert.deepEqual(r0.turns, r100.turns);
    const who = given.people.U1.indexOf(r100.person!);
    assert.equal(given.people.U2.indexOf(swap.person!), who);
    assert.deepEqual(swap.boxes, r100.boxes);
    if (r50.person) assert.deepEqual(r50.pictures, r100.pictures);
    else assert.deepEqual(r50.pictures, r0.pictures);
    assert.notDeepEqual(r100.pictures[0].data, r0.pictures[0].data);
  }
});

Deno.test("the controls ask what they are for", async () => {
  const given = await context();
  const names = new Set([...given.people.U1, ...given.people.U2].map(({ username }) => username));
  let helped = 0, asked = 0;
  for (let i = 0; i < 20; i++) {
    const known = await armSample(planArm("known"), given, i);
    assert.deepEqual(known.turns.map(({ answer }) => answer), [
      names.has(known.person!.username) ? "yes" : "no",
    ]);
    const who = await armSample(planArm("who"), given, i);
    assert.equal(who.turns[0].answer, who.person!.username);
    assert.ok(given.people.U1.includes(who.person!));
    const reading = await armSample(planArm("corr0"), given, i);
    assert.ok(!names.has(reading.person!.username));
    const own = given.source.answers[given.people.U0.indexOf(reading.person!) % given.source.answers.length];
    for (const { answer } of reading.turns) [helped, asked] = [helped + Number(answer === own), asked + 1];
    const neutral = await armSample(planArm("neutral"), given, i);
    assert.equal(neutral.person, null);
    assert.equal(neutral.boxes.length, 1);
  }
  assert.ok(helped / asked > 0.75 && helped < asked);
});

Deno.test("augmented and re-encoded arms keep questions or pictures as they should", async () => {
  const given = await context(), r0 = await armSample(planArm("r0"), given, 3);
  const image = await armSample(planArm("image-augmented"), given, 3);
  assert.deepEqual(image.turns, r0.turns);
  assert.ok(image.pictures[0].width > r0.pictures[0].width);
  const text = await armSample(planArm("text-augmented"), given, 3);
  assert.deepEqual(text.pictures, r0.pictures);
  text.turns.forEach((turn, i) => assert.notEqual(turn.question, r0.turns[i].question));
  const again = await armSample(planArm("reencode"), given, 3);
  assert.notDeepEqual(again.pictures[0].data, r0.pictures[0].data);
  const far = again.pictures[0].data.reduce(
    (sum, value, i) => sum + Math.abs(value - r0.pictures[0].data[i]),
    0,
  );
  assert.ok(far / again.pictures[0].data.length < 12);
});

Deno.test("probed scenes pair every person at one place and are none of the training pictures", async () => {
  const given = await context(), scenes = await probeScenes(given, 3);
  assert.equal(scenes.length, 3 * 8);
  for (const scene of [0, 1, 2]) {
    const boxes = scenes.filter((one) => one.scene === scene).map(({ box }) => JSON.stringify(box));
    assert.equal(new Set(boxes).size, 1);
  }
  const trained = new Set<string>();
  for (let i = 0; i < given.source.count; i++) {
    trained.add((await given.source.item(i)).pictures[0].data.join());
  }
  for (let i = 0; i < 6; i++) {
    assert.ok(!trained.has((await given.source.heldOut(i)).pictures[0].data.join()));
  }
});

Deno.test("a paraphrase changes one or two words or the punctuation, by seed; given ones go first", () => {
  const text = "What color is the small car near the man?";
  const seen = new Set<string>();
  for (let seed = 0; seed < 50; seed++) {
    const out = paraphrase(text, new Random(seed, "t"));
    seen.add(out);
    assert.equal(out, paraphrase(text, new Random(seed, "t")));
    assert.notEqual(out, text);
    assert.match(out, /^[A-Z]/);
  }
  assert.ok(seen.size > 8);
  assert.match(paraphrase("xyzzy plugh", new Random(1, "t")), /^xyzzy plugh[.?]$/);
  const given = readParaphrases({ "what is it": ["which thing is it"] }, "p.json");
  assert.equal(paraphrase("what is it", new Random(1, "t"), given), "which thing is it");
  assert.throws(() => readParaphrases({ a: [] }, "p.json"), /p\.json/);
});

const study = (more: Record<string, unknown> = {}) =>
  studySchema.parse({
    name: "t",
    models: [{ name: "tiny", path: "builtin:tiny", train: { epochs: 2 } }],
    data: [{ kind: "synthetic", name: "shapes", images: 20 }],
    arms: ["base", "r0", "r100"],
    ...more,
  });
const identities = {
  models: { tiny: "m" },
  data: { "shapes/0": { hash: "d", images: 20 }, "shapes/1": { hash: "e", images: 20 } },
};

Deno.test("cells are named by content: order of keys, names and other cells do not matter, settings do", async () => {
  const ids = async (more: Record<string, unknown> = {}) =>
    new Map((await planCells(study(more), identities)).map(({ id, key, kind }) => [
      [kind, key.arm, key.seed, key.prompt].join(),
      id,
    ]));
  const first = await ids();
  const more = await ids({ name: "other", seeds: [0, 1], arms: ["r0", "base", "r50", "r100", "known"] });
  for (const [key, id] of first) assert.equal(more.get(key), id, key);
  const changed = await ids({ people: 9 });
  for (const [key, id] of first) assert.notEqual(changed.get(key), id, key);
  const draws = await ids({ probe: { draws: 50 } });
  assert.equal(draws.get("tune,r0,0,"), first.get("tune,r0,0,"));
  assert.notEqual(draws.get("probe,r0,0,username"), first.get("probe,r0,0,username"));
  assert.equal(new Set(first.values()).size, first.size);
});

Deno.test("steps follow epochs, an arm's own settings go first, and the untuned model is shared by batch sizes", async () => {
  const config = study({ tuning: { r100: { steps: 7, lr: 1e-3 } }, batchSizes: [4, 8] });
  const [model] = config.models;
  assert.deepEqual(tuningOf(config, model, "r0", 8, 20), { images: 20, steps: 5, lr: 2e-4 });
  assert.deepEqual(tuningOf(config, model, "r100", 8, 20), { images: 20, steps: 7, lr: 1e-3 });
  const chains = chainsOf(await planCells(config, identities));
  assert.equal(chains.filter(({ name }) => name.includes("base")).length, 1);
  assert.equal(chains.filter(({ name }) => name.includes("r100")).length, 2);
  await assert.rejects(planCells(study({ comparedTo: "r10" }), identities), /"r10"/);
  await assert.rejects(planCells(study({ tuning: { r20: { steps: 1 } } }), identities), /"r20"/);
  for (const arm of NAMED_ARMS) assert.equal(planArm(arm).name, arm);
  assert.throws(() => study({ arms: ["r101"] }));
});

Deno.test("shards share the work evenly, each chain once", async () => {
  const chains = chainsOf(await planCells(study({ seeds: [0, 1] }), identities));
  const cost = ({ cells }: { cells: unknown[] }) => cells.length;
  const parts = [1, 2, 3].map((i) => shardOf(chains, i, 3, cost));
  assert.deepEqual(parts.flat().map(({ name }) => name).sort(), chains.map(({ name }) => name).sort());
  const loads = parts.map((part) => part.reduce((sum, chain) => sum + cost(chain), 0));
  assert.ok(Math.max(...loads) - Math.min(...loads) <= 5, String(loads));
  assert.throws(() => shardOf(chains, 4, 3, cost), /4\/3/);
});
