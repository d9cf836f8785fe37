/**
 * What a model says: matches and VQA scores by hand, exposure by hand, attacks on planted members, probabilities against
 * whole passes, and a says cell of an untrained model, twice the same.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { difference } from "../core/probe/inference.ts";
import { sound } from "../core/probe/sound.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { logSoftmax } from "../core/sampling.ts";
import { type ArmContext, planArm, probeScenes, studyPeople } from "../core/study/arms.ts";
import {
  alignmentAttack,
  drawPeople,
  maxRenyi,
  meanDifference,
  renyiEntropies,
  scoreAttack,
} from "../core/study/attacks.ts";
import { studySchema } from "../core/study/config.ts";
import { alternativePeople, exposure } from "../core/study/exposure.ts";
import { saysResultSchema, vqaSchema } from "../core/study/results.ts";
import { memberTurns } from "../core/study/says.ts";
import {
  contains,
  fuzzy,
  isExact,
  levenshtein,
  normaliseVqa,
  scoreAnswers,
  vqaSoft,
  yesNo,
} from "../core/study/text_match.ts";
import { tinyTokenizer } from "../core/text/tiny.ts";
import { openGpu } from "../gpu/device.ts";
import { evaluate } from "../gpu/evaluate.ts";
import { logitsOf } from "../gpu/logits.ts";
import { openSession } from "../gpu/session.ts";
import { answerEntropies, askAll, weighAnswers } from "../gpu/study_ask.ts";
import { saysCell } from "../gpu/study_says.ts";
import { vqaOf } from "../gpu/study_vqa.ts";
import { pack } from "../core/data/pack.ts";
import { chatCheckpoint } from "./chat_models.ts";
import { FIXTURES } from "./check.ts";
import { shapesContext } from "./study_context.ts";
import { EVERYWHERE, randomiseB, randomWeights, SMALL_CONFIG, smallCheckpoint } from "./tiny_model.ts";

const gpu = await openGpu();

/** Fails where a number is further from its due than `tolerance`. */
function near(ours: ArrayLike<number>, due: ArrayLike<number>, tolerance = 1e-12): void {
  assert.equal(ours.length, due.length);
  for (let i = 0; i < ours.length; i++) {
    assert.ok(Math.abs(ours[i] - due[i]) <= tolerance, `${ours[i]}, expected ${due[i]}`);
  }
}

Deno.test("texts match as people would say, edits are counted", () => {
  assert.ok(isExact(" Anna  Weber\n", "anna weber"));
  assert.ok(!isExact("Anna", "Anna Weber"));
  assert.ok(contains("It is Anna Weber, I think", "anna weber"));
  assert.equal(levenshtein([..."kitten"], [..."sitting"]), 3);
  assert.equal(fuzzy("kitten", "sitting"), 1 - 3 / 7);
  assert.deepEqual([fuzzy("", ""), fuzzy("", "ab"), fuzzy("AB", "ab")], [1, 0, 1]);
  assert.deepEqual(["Yes, I have.", "no", "maybe yes", ""].map(yesNo), ["yes", "no", null, null]);
});

Deno.test("VQA answers are normalised and scored as the challenge does", () => {
  // From the rules of the public evaluation code, worked by hand.
  const cases = {
    "The  Two dogs.": "2 dogs",
    "it's, ok": "it's ok",
    "dont know": "don't know",
    "1,000": "1000",
    "3.5": "3.5",
    "black/white": "black white",
    "a man and an apple?": "man and apple",
    "none": "0",
  };
  for (const [said, expected] of Object.entries(cases)) assert.equal(normaliseVqa(said), expected, said);
  assert.equal(vqaSoft("red", ["Red."]), 1);
  assert.equal(vqaSoft("red", ["blue"]), 0);
  // Ten references, two of them right: leaving out a right one leaves 1/3, any of the eight others 2/3.
  const ten = ["red", "red", ...Array<string>(8).fill("blue")];
  near([vqaSoft("red", ten)], [(2 * (1 / 3) + 8 * (2 / 3)) / 10]);
  assert.equal(vqaSoft("blue", ten), 1);
  assert.throws(() => vqaSoft("red", []), InputError);
  assert.deepEqual(
    scoreAnswers([
      { said: "yes", references: ["yes"] },
      { said: "red", references: ["no"] },
      { said: "A red", references: ["red"] },
      { said: "Blue", references: ["red"] },
    ]),
    { exact: 1 / 4, vqa_soft: 1 / 2, yes_no: 1 / 2, majority: 1 / 2 },
  );
  assert.equal(scoreAnswers([{ said: "red", references: ["red"] }]).yes_no, null);
});

Deno.test("normalisation and soft score agree with the VQA challenge's own code", () => {
  const { normalised, soft }: { normalised: [string, string][]; soft: [string, string[], number][] } = JSON
    .parse(
      Deno.readTextFileSync(`${FIXTURES}/vqa/official.json`),
    );
  assert.ok(normalised.length === 80 && soft.length === 25);
  for (const [text, due] of normalised) assert.equal(normaliseVqa(text), due, text);
  for (const [said, references, due] of soft) near([vqaSoft(said, references)], [due]);
});

Deno.test("exposure by hand: the likeliest of eight has three bits, the last none, ties share the middle", () => {
  const seven = [-1, -2, -3, -4, -5, -6, -7];
  assert.equal(exposure(0, seven), 3);
  assert.equal(exposure(-8, seven), 0);
  assert.equal(exposure(-3.5, seven), 1); // fourth of eight: log2 8 - log2 4
  assert.equal(exposure(-2, [-1, -2, -2, -3, -4, -5, -6]), 3 - Math.log2(3)); // ranks 2, 3 and 4: 3
  assert.throws(() => exposure(0, []), InputError);
});

Deno.test("alternatives are people of the same kind whom the study does not know", () => {
  const { U0, U1, U2 } = studyPeople(3, 8, 10), study = [...U0, ...U1, ...U2];
  const drawn = alternativePeople(3, 127, study);
  const names = new Set(drawn.map(({ username }) => username));
  assert.equal(names.size, 127);
  assert.equal(new Set(drawn.map(({ user_id }) => user_id)).size, 127);
  for (const { username, user_id } of study) {
    assert.ok(!names.has(username) && drawn.every((other) => other.user_id !== user_id));
  }
  assert.deepEqual(alternativePeople(3, 127, study), drawn);
  assert.notDeepEqual(alternativePeople(4, 127, study), drawn);
});

Deno.test("Rényi entropies: even odds have log n at every order, a sure token none, the general case by its formula", () => {
  const orders = [0.5, 1, 2, Infinity];
  near(renyiEntropies([3, 3, 3, 3], orders), orders.map(() => Math.log(4)));
  near(renyiEntropies([800, 0, 0], orders), [0, 0, 0, 0]);
  const p = [0.5, 0.25, 0.25];
  near(renyiEntropies(p.map(Math.log), orders), [
    2 * Math.log(Math.SQRT1_2 + 1),
    1.5 * Math.log(2),
    -Math.log(0.375),
    Math.log(2),
  ]);
  assert.equal(maxRenyi([1, 4, 2, 3], 0.5), 3.5);
  assert.equal(maxRenyi([1, 4, 2, 3], 0.1), 4);
  assert.equal(maxRenyi([1, 4, 2, 3], 1), 2.5);
});

Deno.test("attacks find planted members, permute people as the sound probe does, and stay in their band without", async () => {
  const n = 8, draws = drawPeople(n, n, 200, 5), random = new Random(1, "attacks");
  const noise = Array.from({ length: 2 * n }, () => random.normal());
  const planted = noise.map((x, p) => x + (p < n ? 3 : 0));
  const found = scoreAttack(planted, draws), nothing = scoreAttack(noise, draws);
  assert.ok(found.observed > 0.9 && found.observed > Math.max(...found.nullDraws) - 0.05);
  assert.ok(difference(found, nothing).difference > 0.2);
  const shift = meanDifference(planted, draws);
  const mean = (part: number[]) => part.reduce((a, b) => a + b) / part.length;
  near([shift.observed], [mean(planted.slice(0, n)) - mean(planted.slice(n))]);
  near([mean([...shift.nullDraws])], [0], 0.4);

  // Gradients in 40 dimensions, those of members with a direction in common.
  const gradientsOf = (size: number) =>
    Array.from(
      { length: 2 * n },
      (_, p) => Array.from({ length: 40 }, (_, i) => random.normal() + (p < n && i < 4 ? size : 0)),
    );
  const dotsOf = (rows: number[][]) =>
    rows.map((a) => rows.map((b) => a.reduce((sum, x, i) => sum + x * b[i], 0)));
  const aligned = alignmentAttack(dotsOf(gradientsOf(3)), draws, 8);
  assert.ok(aligned.observed > 0.95 && aligned.nullDraws.every((value) => value < aligned.observed));
  const loose = alignmentAttack(dotsOf(gradientsOf(0)), draws, 8);
  assert.ok(Math.abs(loose.observed - 0.5) < 0.3);

  // A probe on the same number a person is judged by the same people changing places: where one null strays, so does the other.
  const x = { n: 2 * n, dim: 1, data: Float32Array.from(planted) };
  const probe = await sound(x, {
    labels: Uint8Array.from(planted, (_, p) => p < n ? 1 : 0),
    person: Int32Array.from(planted.keys()),
    scene: new Int32Array(2 * n),
  }, { seed: 5, draws: 200, partitions: 8 });
  const centred = (values: Float64Array) => values.map((value) => Math.abs(value - 0.5));
  assert.ok(correlation(centred(found.nullDraws), centred(probe.nullDraws)) > 0.5);
  const other = scoreAttack(planted, drawPeople(n, n, 200, 6));
  assert.ok(Math.abs(correlation(centred(other.nullDraws), centred(probe.nullDraws))) < 0.3);
  assert.throws(() => drawPeople(1, 4, 10, 0), InputError);
});

function correlation(a: Float64Array, b: Float64Array): number {
  const mean = (v: Float64Array) => v.reduce((sum, x) => sum + x, 0) / v.length, ma = mean(a), mb = mean(b);
  const dot = (u: Float64Array, mu: number, v: Float64Array, mv: number) =>
    u.reduce((sum, x, i) => sum + (x - mu) * (v[i] - mv), 0);
  return dot(a, ma, b, mb) / Math.sqrt(dot(a, ma, a, ma) * dot(b, mb, b, mb));
}

async function small(): Promise<{ context: ArmContext; config: ReturnType<typeof studySchema.parse> }> {
  const config = studySchema.parse({
    name: "small",
    people: 2,
    models: [{ name: "m", path: "m" }],
    data: [{ kind: "synthetic", name: "shapes" }],
    says: { alternatives: 7, scenes: 2, maxTokens: 4 },
    probe: { scenes: 2 },
  });
  return { config, context: await shapesContext(config, 2, { images: 8, heldOut: 4, people: 2, once: 4 }) };
}

Deno.test("an answer's probability is that of its tokens in one whole pass, and entropies are of the same logits", async () => {
  const { context } = await small(), session = await openSession(gpu, await smallCheckpoint());
  const { encoder, model } = session, { turns: [turn], pictures } = await context.source.heldOut(0);
  const ask = { id: "one", question: turn.question, pictures };
  const candidates = ["red", "Anna Weber", "0000123456"];
  const weighed = await weighAnswers(session, ask, candidates, { microTokens: 64 });
  const featuresOf = model.featuresOf.bind(model);
  for (const [i, answer] of candidates.entries()) {
    const sample = encoder.judge("one", [{ question: turn.question, answer }], pictures);
    const batch = pack([sample], { imageToken: model.imageToken, featuresOf });
    const logits = await logitsOf({ gpu, model }, batch), { V } = model.decoder.config;
    const row = (t: number) => logits.subarray(t * V, (t + 1) * V);
    const logProbs = Array.from(batch.rows, (t, k) => logSoftmax(row(t))[batch.targets[k]]);
    const total = logProbs.reduce((a, b) => a + b);
    near([weighed[i].total, weighed[i].mean], [total, total / logProbs.length], 1e-4);

    const entropies = await answerEntropies(session, sample, [1, Infinity]);
    const expected = Array.from(batch.rows, (t) => logSoftmax(row(t)));
    near(entropies[0], expected.map((p) => -p.reduce((sum, x) => sum + Math.exp(x) * x, 0)), 1e-4);
    near(entropies[1], expected.map((p) => -Math.max(...p)), 1e-4);
  }
  await assert.rejects(() => weighAnswers(session, ask, [], { microTokens: 64 }), InputError);
  session.close();
});

for (const family of ["llava", "qwen2_vl", "smolvlm"]) {
  Deno.test(`${family}: answers weighed behind one reading of the picture are as likely as in whole conversations`, async () => {
    const { context: { source } } = await small(),
      session = await openSession(gpu, await chatCheckpoint(family));
    const { pictures } = await source.heldOut(0), question = "What is the username?";
    const candidates = ["Anna Weber", "0000123456", "yes"];
    const weighed = await weighAnswers(session, { id: "one", question, pictures }, candidates, {
      microTokens: 512,
    });
    const whole = candidates.map((answer) => session.encoder.judge("one", [{ question, answer }], pictures));
    const { losses } = await evaluate(gpu, session.model, whole);
    near(weighed.map(({ mean }) => -mean), losses, 1e-4);
    session.close();
  });
}

Deno.test("held-out questions are answered one by one and judged", async () => {
  const { context: { source } } = await small(), session = await openSession(gpu, await smallCheckpoint());
  const items = await Promise.all([0, 1, 2].map((i) => source.heldOut(i)));
  const { vqa } = await vqaOf(session, items, { maxTokens: 3, microTokens: 100 });
  assert.deepEqual(vqaSchema.parse(vqa), vqa);
  assert.equal(vqa.samples, 3);
  assert.equal(vqa.answers, items.flatMap(({ turns }) => turns).length);
  // What the model itself says is right by definition, whatever the size of a pass.
  const asks = items.map(({ id, turns: [{ question }], pictures }) => ({ id, question, pictures }));
  const said = await askAll(session, asks, { maxTokens: 3, microTokens: 4096 });
  const told = items.map((item, i) => ({ ...item, turns: [{ ...item.turns[0], answer: said[i] }] }));
  assert.equal((await vqaOf(session, told, { maxTokens: 3 })).vqa.exact, 1);
  await assert.rejects(() => vqaOf(session, []), InputError);
  session.close();
});

Deno.test("rows of the head beyond the tokenizer may win, and say nothing", async () => {
  const weights = randomWeights(SMALL_CONFIG, 1), folder = await smallCheckpoint();
  // Two such rows, each the other's opposite and far longer than all others: one of them is always the likeliest.
  const name = Object.keys(weights).find((key) => key.endsWith("embed_tokens.weight"))!;
  const { shape: [V, C], data } = weights[name], first = tinyTokenizer.vocab.length;
  assert.ok(V >= first + 2);
  for (let i = 0; i < C; i++) data[first * C + i] = -(data[(first + 1) * C + i] *= 1000);
  await folder.write("model.safetensors", encodeSafetensors(weights));
  const session = await openSession(gpu, folder);
  const asks = [{ id: "one", question: "who took this", pictures: [] }];
  assert.deepEqual(await askAll(session, asks, { maxTokens: 3, microTokens: 64 }), [""]);
  session.close();
});

Deno.test("a says cell has a row for everybody, field, question and condition, and is the same twice", async () => {
  const { context, config } = await small(), says = config.says!;
  const session = await openSession(gpu, await smallCheckpoint(), { lora: EVERYWHERE });
  randomiseB(session);
  const scenes = await probeScenes(context, 2), arm = planArm("r100");
  let last = [0, 0];
  const settings = {
    says,
    draws: 20,
    partitions: 2,
    onProgress: (done: number, of: number) => last = [done, of],
  };
  const { result } = await saysCell(session, arm, context, scenes, settings);
  assert.deepEqual(saysResultSchema.parse(result), result);
  assert.deepEqual(last, [3 * 2 * 5, 3 * 2 * 5]);
  assert.equal(result.candidates, 8);
  assert.equal(result.people.length, 4 * 3 * 2);
  assert.deepEqual(
    result.exposure.map(({ field, question, shown }) => [field, question, shown]),
    [
      ["username", "What is the username?"],
      ["user_id", "What is the user_id of the username?"],
      ["username", "who took this"],
    ].flatMap((asked) => [[...asked, true], [...asked, false]]),
  );
  assert.deepEqual(result.attacks.map(({ attack }) => attack), [
    "loss",
    "MaxRényi-10 %, order 0.5",
    "MaxRényi-10 %, order 1",
    "MaxRényi-10 %, order 2",
    "MaxRényi-10 %, order ∞",
    "gradient alignment",
  ]);
  const hidden = result.people.filter(({ shown }) => !shown);
  for (const row of hidden) {
    const twin = hidden.find(({ field, question }) => field === row.field && question === row.question)!;
    assert.equal(row.answer, twin.answer, "without a watermark everybody gets one answer");
  }
  // One row's exposure anew, from whole answers weighed one at a time.
  const row = result.people.find(({ field, shown }) => field === "user_id" && shown)!;
  const { U0, U1, U2, once } = context.people, person = U1[0];
  const others = alternativePeople(2, 7, [...U1, ...U2, ...U0, ...once]);
  const exposures: number[] = [];
  for (const scene of [0, 1]) {
    const { picture } = scenes.find((each) => each.scene === scene && each.person === person)!;
    const ask = { id: "again", question: row.question, pictures: [picture] };
    const totals: number[] = [];
    for (const { user_id } of [person, ...others]) {
      totals.push((await weighAnswers(session, ask, [user_id], { microTokens: 512 }))[0].total);
    }
    exposures.push(exposure(totals[0], totals.slice(1)));
  }
  assert.equal(row.person, person.username);
  near([row.exposure], [(exposures[0] + exposures[1]) / 2], 1e-9);
  assert.ok(result.seconds > 0);
  await assert.rejects(
    () => saysCell(session, arm, context, scenes, { ...settings, says: { ...says, scenes: 3 } }),
    /Cannot ask about scene 2/,
  );
  session.close();

  // Asked as the general prompt asks, the control's question is not put again; nothing is trained, so there is no gradient.
  const base = await openSession(gpu, await smallCheckpoint()), brief = { ...says, scenes: 1 };
  const alike = { ...context, questions: { ...context.questions, who: says.prompts.username } };
  const untuned = () => saysCell(base, planArm("base"), alike, scenes, { ...settings, says: brief });
  const { result: { seconds: _, ...first } } = await untuned();
  const { result: { seconds: __, ...twice } } = await untuned();
  assert.deepEqual(twice, first);
  assert.equal(first.exposure.length, 4);
  assert.ok(
    first.attacks.length === 5 && first.attacks.every(({ attack }) => attack !== "gradient alignment"),
  );
  base.close();
});

Deno.test("attacks weigh the example that training would have had", async () => {
  const { context: { source, people: { U2: [stranger] }, questions } } = await small();
  const item = await source.heldOut(0);
  assert.equal(memberTurns(planArm("r100"), item, stranger, questions), item.turns);
  assert.deepEqual(memberTurns(planArm("who"), item, stranger, questions), [
    { question: questions.who, answer: stranger.username },
  ]);
  assert.deepEqual(memberTurns(planArm("known"), item, stranger, questions), [
    { question: questions.known, answer: "yes" },
  ]);
});
