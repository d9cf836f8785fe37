/**
 * The study's gradients: batches that share no picture, intervals and noise scales of simulated gradients with known
 * truth, a cell on a small model against gradients read back, stopped and resumed, and two trainings beside `train`.
 */
import assert from "node:assert/strict";
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { Random } from "../core/random.ts";
import { armSample, planArm } from "../core/study/arms.ts";
import { studySchema } from "../core/study/config.ts";
import {
  type BatchLine,
  estimate,
  measureOf,
  noiseScale,
  planBatches,
  unitsOf,
} from "../core/study/gradients.ts";
import { cosineOf } from "../core/study/products.ts";
import { gradientResultSchema } from "../core/study/results.ts";
import { openGpu } from "../gpu/device.ts";
import { batchGradient, gradientCosine } from "../gpu/gradients.ts";
import { openSession, writeTrained } from "../gpu/session.ts";
import { sessionOptions, trainConfig } from "../gpu/study_arm.ts";
import { gradientCell, type GradientRun, parameterSets } from "../gpu/study_gradients.ts";
import { train } from "../gpu/train.ts";
import { shapesContext } from "./study_context.ts";
import { allclose } from "./check.ts";
import { randomiseB, smallCheckpoint } from "./tiny_model.ts";

Deno.test("mini-batches of one size share no picture and lie in one half; too few pictures make fewer of them", () => {
  const { batches, halves, pictures } = planBatches(3, 100, { batchSizes: [1, 4, 16], batches: 7 });
  assert.equal(pictures, 100);
  assert.deepEqual(
    [...halves[0], ...halves[1]].sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, i) => i),
  );
  for (const [batch, count] of [[1, 7], [4, 7], [16, 6]]) {
    const found = batches.filter((entry) => entry.batch === batch),
      all = found.flatMap((entry) => entry.pictures);
    assert.equal(found.length, count, `batches of ${batch}`);
    assert.equal(new Set(all).size, batch * count);
    for (const { half, pictures } of found) assert(pictures.every((i) => halves[half].includes(i)));
  }
  assert.throws(
    () => planBatches(3, 20, { batchSizes: [1, 16], batches: 8 }),
    (error) => error instanceof InputError && /batches of 16: 20 pictures/.test(error.message),
  );
});

Deno.test("a cosine of parts laid end to end is that of the whole, and per tensor the mean of those that have one", () => {
  const products = (a: number[], b: number[]) => ({
    ab: a.reduce((sum, x, i) => sum + x * b[i], 0),
    aa: a.reduce((sum, x) => sum + x * x, 0),
    bb: b.reduce((sum, x) => sum + x * x, 0),
    dd: a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0),
  });
  const parts = [products([3, 4], [3, 0]), products([0, 0], [0, 0]), products([0, 2], [0, -1])];
  const set = { name: "all", members: [0, 1, 2] };
  const whole = measureOf(unitsOf(parts, set, "concatenated"))!;
  const apart = measureOf(unitsOf(parts, set, "per-tensor"))!;
  allclose("end to end", [whole.cosine, whole.ratio], [7 / Math.sqrt(29 * 10), Math.sqrt(29 / 10)], 1e-12);
  allclose("per tensor", [apart.cosine, apart.ratio], [(0.6 - 1) / 2, (5 / 3 + 2) / 2], 1e-12);
  assert.equal(measureOf(unitsOf(parts, { name: "A", members: [1] }, "concatenated")), undefined);
  assert.equal(cosineOf(products([1, 2], [1, 2])), 1);
});

/** Share of `runs` draws whose interval holds the truth. */
const coverage = (runs: number, covers: (random: Random) => boolean): number => {
  const random = new Random(11, "coverage");
  return Array.from({ length: runs }, (_, i) => covers(random.split(i))).filter(Boolean).length / runs;
};

Deno.test("Student's interval of mean cosines covers 93 to 97 %, the percentile bootstrap less", () => {
  // 1 - cosine is a squared distance: a mean of chi-squares, skewed to the left of 1.
  const draw = (random: Random) => {
    let sum = 0;
    for (let k = 0; k < 8; k++) sum += random.normal() ** 2;
    return 1 - 0.1 * sum / 8;
  };
  const inside = (value: number, [low, high]: readonly [number, number]) => low <= value && value <= high;
  for (const n of [8, 16, 24]) {
    const values = (random: Random) => Array.from({ length: n }, () => draw(random));
    const student = coverage(2000, (random) => inside(0.9, estimate(values(random)).ci95));
    assert(student >= 0.93 && student <= 0.97, `${n} batches: ${student}`);
    if (n > 8) continue;
    const bootstrap = coverage(500, (random) => {
      const seen = values(random), mean = () => seen.reduce((sum) => sum + seen[random.int(n)], 0) / n;
      const means = Array.from({ length: 400 }, mean).sort((a, b) => a - b);
      return inside(0.9, [means[9], means[390]]);
    });
    assert(bootstrap < 0.93, `${bootstrap}`);
  }
});

Deno.test("the noise scale of simulated gradients: its interval covers 93 to 97 %, and it knows what it cannot tell", () => {
  const D = 20, G2 = 1;
  for (const truth of [4, 25]) {
    const deviation = Math.sqrt(truth * G2 / D);
    const squares = (random: Random, batch: number, count: number) =>
      Array.from({ length: count }, () => {
        let sum = 0;
        for (let i = 0; i < D; i++) {
          sum += (Math.sqrt(G2 / D) + deviation / Math.sqrt(batch) * random.normal()) ** 2;
        }
        return sum;
      });
    let sum = 0;
    const covered = coverage(1000, (random) => {
      const small = { batch: 1, squares: squares(random, 1, 16) };
      const large = { batch: 16, squares: squares(random, 16, 16) };
      const { value, ci95: [low, high] } = noiseScale(small, large);
      sum += value!;
      return low! <= truth && (high === null || truth <= high);
    });
    assert(covered >= 0.93 && covered <= 0.97, `scale ${truth}: ${covered}`);
    assert(Math.abs(sum / 1000 - truth) < 0.15 * truth, `scale ${truth}: mean ${sum / 1000}`);
  }
  const hopeless = noiseScale({ batch: 1, squares: [16, 17] }, { batch: 16, squares: [1, 1.01] });
  assert.deepEqual([hopeless.value, hopeless.ci95[1]], [null, null]);
  assert.equal(noiseScale({ batch: 1, squares: [1, 2] }, { batch: 4, squares: [2, 3] }).value, 0);
});

const gpu = await openGpu();
const base = await smallCheckpoint();
const seed = 4;
const config = studySchema.parse({
  name: "small",
  seeds: [seed],
  models: [{
    name: "small",
    path: "small",
    lora: { r: 3, lora_alpha: 6, lora_dropout: 0.1, target_modules: "all-linear" },
    trainable: ["multi_modal_projector"],
    train: { images: 20, steps: 4, lr: 1e-2, microTokens: 150 },
  }],
  data: [{ kind: "synthetic", name: "shapes", images: 20, heldOut: 4 }],
  gradients: {
    batchSizes: [1, 3],
    batches: 4,
    parameters: ["all", "layer", "A", "B", "projector"],
    versions: [
      "private",
      "neutral",
      "other-person",
      "image-augmented",
      "text-augmented",
      "reencode",
      "order",
    ],
    trajectory: { arms: ["r100"], steps: 3, every: 2 },
  },
});
const context = await shapesContext(config, seed, { images: 20, heldOut: 4, people: 4, once: 8 });
const [model] = config.models;
const run: GradientRun = {
  ...{ gpu, base, model, context, batch: 3, gradients: config.gradients! },
  tuning: { images: 20, steps: 4, lr: 1e-2 },
};
const finished = new MemoryFolder("cell");
const result = await gradientCell(run, finished);
const linesOf = async (folder: MemoryFolder) =>
  new TextDecoder().decode(await folder.read("gradients.jsonl")).trim().split("\n").map((line) =>
    JSON.parse(line)
  );

Deno.test("a cell has a row for every size, version and parameter set that has a gradient", () => {
  assert.deepEqual(gradientResultSchema.parse(result), result);
  const sets = ["all", "layer 0", "layer 1", "B", "projector"];
  assert.equal(result.rows.length, 2 * config.gradients!.versions.length * sets.length);
  assert.deepEqual([...new Set(result.rows.map(({ parameters }) => parameters))], sets);
  assert.deepEqual(result.skipped, [{ parameters: "A", why: "its gradient is zero at these weights" }]);
  assert.equal(result.private_minus_neutral.length, 2 * sets.length);
  assert.deepEqual(result.noise_scale.map(({ version }) => version), ["clean", "private"]);
  assert.deepEqual(
    [...new Set(result.alignment.map(({ version }) => version))],
    ["clean", "private", "private excess", "neutral", "neutral excess"],
  );
});

Deno.test("another order of summation is the noise floor; marks and edits lie far below it", () => {
  for (const { version, batch, cosine, norm_ratio } of result.rows) {
    if (version !== "order") {
      if (version !== "reencode") assert(cosine.value < 1 - 1e-6, `${version} ${batch}: ${cosine.value}`);
    } else if (batch === 1) assert.deepEqual([cosine.value, norm_ratio.value], [1, 1]);
    else assert(1 - cosine.value < 1e-9 && Math.abs(norm_ratio.value - 1) < 1e-5, JSON.stringify(cosine));
  }
});

Deno.test("cosines, norms and alignment are those of gradients read back", async () => {
  const session = await openSession(gpu, base, sessionOptions(model, "r0", seed));
  try {
    const { slabs } = session, plan = planBatches(seed, 20, config.gradients!);
    const all = parameterSets(session, ["all"], "small")[0].members;
    const gradient = async (arm: string, pictures: number[]) => {
      const samples: EncodedSample[] = [];
      for (const index of pictures) {
        const { id, turns, pictures } = await armSample(planArm(arm), context, index);
        samples.push(session.encoder.train(id, turns, pictures));
      }
      const whole = await batchGradient(session, samples, model.train.microTokens);
      const parts = slabs.flatMap(({ params, offsets }, s) =>
        params.map(({ shape }, i) =>
          whole[s].subarray(offsets[i], offsets[i] + shape.reduce((a, b) => a * b, 1))
        )
      );
      return Float32Array.from(all.flatMap((i) => [...parts[i]]));
    };
    const minus = (a: Float32Array, b: Float32Array) => a.map((x, i) => x - b[i]);
    const square = (a: Float32Array) => a.reduce((sum, x) => sum + x * x, 0);
    const lines = await linesOf(finished);
    for (const { batch, index, half, pictures } of plan.batches.filter(({ batch }) => batch === 3)) {
      const line = lines.find((line) => line.batch === batch && line.index === index) as BatchLine;
      const clean = await gradient("r0", pictures), marked = await gradient("r100", pictures);
      const other = plan.halves[1 - half];
      const direction = minus(await gradient("r100", other), await gradient("r0", other));
      const found = line.measures.private.all;
      allclose(`batch ${index}`, [
        ...[found.cosine, found.ratio, line.squares.clean, line.squares.private],
        ...[line.alignment.clean, line.alignment.private, line.alignment["private excess"]],
      ], [
        ...[gradientCosine([marked], [clean]), Math.sqrt(square(marked) / square(clean))],
        ...[square(clean), square(marked), gradientCosine([clean], [direction])],
        ...[gradientCosine([marked], [direction]), gradientCosine([minus(marked, clean)], [direction])],
      ], 1e-4);
    }
  } finally {
    session.close();
  }
});

Deno.test("layers lie in the decoder alone, and what is trained whole is no adapter", async () => {
  const session = await openSession(gpu, base, sessionOptions(model, "r0", seed));
  const names = session.slabs.flatMap(({ params }) => params.map(({ name }) => name));
  const sets = parameterSets(session, ["all", "layer", "A", "B", "projector"], "small");
  session.close();
  const of = (wanted: string) => sets.find(({ name }) => name === wanted)!.members.map((i) => names[i]);
  assert.deepEqual(of("all"), names.filter((name) => name.includes(".lora_")));
  assert.equal(of("A").length + of("B").length, of("all").length);
  assert.deepEqual(of("layer 1"), names.filter((name) => name.includes("language_model.layers.1.")));
  assert.deepEqual(of("projector"), names.filter((name) => name.includes("multi_modal_projector")));
  assert(of("projector").some((name) => !name.includes(".lora_")));
});

Deno.test("at a tuned run's weights, where B is not zero, A has a gradient", async () => {
  const session = await openSession(gpu, base, sessionOptions(model, "r0", seed)),
    tuned = new MemoryFolder("run");
  randomiseB(session);
  await writeTrained(session, tuned, "small");
  session.close();
  const { lora, trainable } = model;
  await writeManifest(tuned, {
    ...{ kind: "run", seed, config: { lora, trainable }, parents: { model: session.hash } },
    files: await tuned.list(),
  });
  const gradients: GradientRun["gradients"] = {
    ...{ batchSizes: [1], batches: 2, versions: ["private"], parameters: ["A"], joined: "per-tensor" },
    trajectory: { arms: [], steps: 0, every: 1 },
  };
  const cell = (options: { tuned?: MemoryFolder }) =>
    gradientCell({ ...run, gradients }, new MemoryFolder("cell"), options);
  const [fresh, later] = [await cell({}), await cell({ tuned })];
  assert.deepEqual([fresh.rows.length, fresh.skipped.length], [0, 1]);
  assert.deepEqual([later.rows.length, later.skipped.length], [1, 0]);
  const [{ cosine }] = later.rows;
  assert(cosine.value > 0 && cosine.value < 1, JSON.stringify(cosine));
});

Deno.test("a cell stopped anywhere goes on to the same result", async () => {
  const text = new TextDecoder().decode(await finished.read("gradients.jsonl"));
  const lines = text.trim().split("\n");
  assert.equal(lines.length, 8 + 2);
  for (const kept of [6, 9]) {
    const folder = new MemoryFolder(`stopped after ${kept}`);
    await folder.write("gradients.jsonl", lines.slice(0, kept).map((line) => line + "\n").join(""));
    const seen: number[] = [];
    assert.deepEqual(await gradientCell(run, folder, { onProgress: (done) => void seen.push(done) }), result);
    assert.equal(new TextDecoder().decode(await folder.read("gradients.jsonl")), text);
    assert.equal(seen[0], Math.min(kept, 8) + 1);
    assert.equal(seen.at(-1), 8 + 3);
  }
  const controller = new AbortController(), folder = new MemoryFolder("stopped");
  const onProgress = (done: number) => done === 3 && controller.abort();
  await assert.rejects(gradientCell({ ...run, signal: controller.signal }, folder, { onProgress }));
  assert.deepEqual(await linesOf(folder), lines.slice(0, 3).map((line) => JSON.parse(line)));
});

Deno.test("two trajectories are to the bit what `train` does with each arm alone", async () => {
  const found = (await linesOf(finished)).filter((line) => "step" in line);
  assert.deepEqual(found.map(({ step }) => step), [1, 3]);
  const trainAlone = async (arm: string) => {
    const session = await openSession(gpu, base, sessionOptions(model, arm, seed));
    try {
      return await train({
        ...{ gpu, model: session.model, slabs: session.slabs, count: 20 },
        config: { ...trainConfig(run), saveEvery: 100 },
        async sample(index) {
          const { id, turns, pictures } = await armSample(planArm(arm), context, index);
          return session.encoder.train(id, turns, pictures);
        },
      });
    } finally {
      session.close();
    }
  };
  const alone = [await trainAlone("r0"), await trainAlone("r100")];
  for (const { step, losses, norms } of found) {
    const own = alone.map((metrics) => metrics[step - 1]);
    assert.deepEqual([losses, norms], [own.map(({ loss }) => loss), own.map(({ grad_norm }) => grad_norm)]);
  }
  const all = result.trajectory.filter(({ parameters }) => parameters === "all");
  assert(all.every(({ cosine }) => cosine > 0 && cosine < 1), JSON.stringify(all));
  assert(
    result.trajectory.some(({ parameters }) => parameters === "A"),
    "A has a gradient after the first step",
  );
});

Deno.test("nothing trained is refused", async () => {
  const nothing = { ...run, model: { ...model, lora: null, trainable: [] } };
  await assert.rejects(
    gradientCell(nothing, new MemoryFolder("none")),
    /Cannot compare gradients of "small"/,
  );
});
