/**
 * The probe task end to end: an activation set with a known truth in, a table and a stored probe out, pictures scored.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import type { ImageErrorCode } from "../core/image/image_error.ts";
import {
  type ActivationSet,
  readActivations,
  type SampleRow,
  writeActivations,
} from "../core/probe/activations.ts";
import { fitProbe } from "../core/probe/fit.ts";
import { defaultPrimary, featureRows, orderedFeatures, selectRows } from "../core/probe/selection.ts";
import { loadProbe, scoreProbe, storedProbeSchema } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { scoreFile, scoreTable } from "../scripts/probe_score.ts";
import { formatTable } from "../scripts/table.ts";
import { FIXTURES } from "./check.ts";
import { saveTestProbe } from "./service_probe.ts";

const row = (id: string, set: string, person: string | null, scene: string): SampleRow => ({
  id,
  image: `${id}.png`,
  person,
  set,
  scene,
});

Deno.test("rows of two sets are chosen, people and scenes numbered", () => {
  const samples = [
    row("a", "U2", "eva", "s1"),
    row("b", "none", null, "s0"),
    row("c", "U1", "kim", "s2"),
    row("d", "U0", "ida", "s1"),
    row("e", "U1", "ben", "s1"),
    row("f", "U2", "eva", "s2"),
  ];
  const { rows, labels, person, scene, ...counts } = selectRows(samples, "U1", "U2");
  assert.deepEqual([rows, labels, person, scene].map((list) => [...list]), [
    [0, 2, 4, 5],
    [0, 1, 1, 0],
    [0, 1, 2, 0],
    [0, 1, 0, 1],
  ]);
  assert.deepEqual(counts, { seenPeople: 2, unseenPeople: 1, scenes: 2 });
  const feature = { dim: 2, data: Float32Array.from({ length: 12 }, (_, i) => i) };
  assert.deepEqual([...featureRows(feature, rows)], [0, 1, 4, 5, 8, 9, 10, 11]);

  const refused = (some: SampleRow[], seen: string, unseen: string, message: RegExp) =>
    assert.throws(
      () => selectRows(some, seen, unseen),
      (error: Error) => error instanceof InputError && message.test(error.message),
    );
  refused(samples, "U1", "U1", /the set "U1" with itself/);
  refused(samples, "U1", "U3", /no sample of the set "U3", only of "U2", "none", "U1", "U0"/);
  refused(samples, "U1", "none", /sample "b" of "none" has no person/);
  refused([...samples, row("g", "U2", "kim", "s1")], "U1", "U2", /"kim" is in both "U1" and "U2"/);
});

Deno.test("features are ordered by layer, and the one reported first follows from names alone", () => {
  const names = [
    "layers.10.resid_post@last",
    "layers.10.resid_post@image-mean",
    "layers.2.resid_post@index:-2",
    "projector@image-mean",
    "vision.3.resid_post@mean",
  ];
  const features = orderedFeatures({
    features: new Map(names.toReversed().map((name) => [name, { dim: 1, data: new Float32Array(1) }])),
  });
  assert.deepEqual(features, [names[2], names[1], names[0], names[3], names[4]]);
  assert.equal(defaultPrimary(features), names[0]);
  assert.equal(
    defaultPrimary([...features, "layers.11.resid_post@index:-2"]),
    "layers.11.resid_post@index:-2",
  );
  assert.equal(defaultPrimary([names[1], names[3]]), names[1]);
  assert.equal(defaultPrimary([names[3], names[4]]), names[4]);
});

Deno.test("tables align numbers right and words left", () => {
  assert.equal(
    formatTable(["name", "p", "band"], [["a", "0.5", "[.1, .9]"], ["longer", "10", "-"]]),
    "name      p  band\n------  ---  --------\na       0.5  [.1, .9]\nlonger   10  -",
  );
  assert.throws(() => formatTable(["a"], [["1", "2"]]), RangeError);
});

Deno.test("a picture file is decoded, encoded and scored by every layer", async () => {
  const folder = new MemoryFolder();
  const names = ["layers.0.resid_post@last", "layers.1.resid_post@last"];
  await saveTestProbe(folder, "p", names);
  const probe = await loadProbe(folder.folder("p"));
  const path = join(FIXTURES, "images/small.png");
  // Coefficients 1, -2, 3 and intercepts 0.25, 0.5 on (width, height, first byte of red) / 100.
  const score = await scoreFile(path, probe, ({ width, height, data }) => {
    const x = Float32Array.of(width, height, data[0]).map((value) => value / 100);
    return Promise.resolve({ [names[0]]: x, [names[1]]: x.map((value) => 2 * value) });
  });
  assert.equal(score.primary, score.layers[1]);
  const doubled = score.layers[0].score - 0.25;
  assert(Math.abs(score.layers[1].score - 0.5 - 2 * doubled) < 1e-6);

  probe.layers[0].threshold = { fpr01: score.layers[0].score - 1, fpr001: score.layers[0].score + 1 };
  probe.layers[1].threshold = { fpr01: -1000, fpr001: -999 };
  const lines = scoreTable(probe, [score]).split("\n");
  assert.match(lines[2], /layers.0.resid_post@last .*above 1 % FPR$/);
  assert.match(lines[3], /layers.1.resid_post@last \* .*above 0.1 % FPR$/);

  const code = async (name: string): Promise<ImageErrorCode> =>
    await scoreFile(join(FIXTURES, "images", name), probe, () => Promise.reject(new Error("not reached")))
      .then(() => assert.fail("was scored"), (error) => error.code);
  assert.equal(await code("animated.png"), "animated");
  assert.equal(await code("decode.json"), "unknown-format");
});

const DIM = 6, PEOPLE = 8, SCENES = 12;
const SHARED = "layers.1.resid_post@last", NAMES = "layers.0.resid_post@last";

/** Every person on every scene. SHARED moves all seen people along one direction, NAMES each person along one of its own. */
function syntheticSet(seed = 1): ActivationSet {
  const random = new Random(seed), samples: SampleRow[] = [];
  const draw = (name: string, size: number) => {
    const stream = random.split(name);
    return Float32Array.from({ length: size }, () => stream.normal());
  };
  const shared: number[] = [], names: number[] = [];
  for (let scene = 0; scene < SCENES; scene++) {
    const place = draw(`scene ${scene}`, DIM);
    for (let person = 0; person < 2 * PEOPLE; person++) {
      const noise = draw(`noise ${scene} ${person}`, 2 * DIM), own = draw(`person ${person}`, DIM);
      const set = person < PEOPLE ? "U1" : "U2";
      samples.push(row(`${scene}/${person}`, set, `p${person}`, `s${scene}`));
      for (let j = 0; j < DIM; j++) {
        shared.push(2 * place[j] + noise[j] + (set === "U1" && j === 2 ? 2 : 0));
        names.push(2 * place[j] + noise[DIM + j] + 2 * own[j]);
      }
    }
  }
  const feature = (values: number[]) => ({ dim: DIM, data: Float32Array.from(values) });
  return { samples, features: new Map([[SHARED, feature(shared)], [NAMES, feature(names)]]) };
}

const options = {
  seen: "U1",
  unseen: "U2",
  c: 1,
  centerScenes: true,
  standardize: false,
  faithful: {},
  partitions: 8,
  draws: 99,
  seed: 0,
};

Deno.test("a shared direction is found both ways, people's own directions by the faithful way alone", async () => {
  const calls: [number, number][] = [];
  const { facts } = await fitProbe(syntheticSet(), {
    ...options,
    onProgress: (done, total) => calls.push([done, total]),
  });
  const [names, shared] = facts.layers.map(({ metrics }) => metrics);
  assert(shared.sound!.auroc > 0.85 && shared.sound!.p === 0.01, JSON.stringify(shared));
  assert(shared.faithful!.auroc > 0.85, JSON.stringify(shared));
  assert(names.faithful!.auroc > 0.7, JSON.stringify(names));
  assert(names.sound!.p > 0.05, JSON.stringify(names));
  for (const { sound } of [names, shared]) assert(sound!.p_family! >= sound!.p);
  assert.equal(facts.primary, SHARED);
  assert.deepEqual([facts.seen, facts.unseen], [{ set: "U1", people: 8 }, { set: "U2", people: 8 }]);
  assert.deepEqual(calls.at(-1), [200, 200]);
  assert(calls.every(([done], i) => done === i + 1));
});

Deno.test("stored coefficients are the optimum on all rows as they are, under scikit-learn's objective", async () => {
  const set = syntheticSet(), c = 0.3;
  for (const standardize of [false, true]) {
    const { tensors } = await fitProbe(set, { ...options, c, standardize, draws: 1 });
    for (const [feature, { coef, intercept, mean, scale }] of Object.entries(tensors)) {
      assert.equal(mean !== undefined && scale !== undefined, standardize);
      // |w|^2 / 2 + C sum log(1 + exp(-y m)): its gradient is w + C sum (p - y) x, without w for the intercept.
      const { data } = set.features.get(feature)!, gradient = [...coef, 0];
      set.samples.forEach(({ set: name }, i) => {
        const x = Array.from(coef, (_, j) => (data[i * DIM + j] - (mean?.[j] ?? 0)) / (scale?.[j] ?? 1));
        const margin = x.reduce((sum, value, j) => sum + coef[j] * value, intercept);
        const error = c * (1 / (1 + Math.exp(-margin)) - (name === "U1" ? 1 : 0));
        [...x, 1].forEach((value, j) => gradient[j] += error * value);
      });
      assert(Math.hypot(...gradient) < 1e-6 * Math.hypot(...coef), `${feature}: ${gradient}`);
    }
  }
});

Deno.test("a stored threshold lets through the stated share of pictures of people who were left out", async () => {
  const set = syntheticSet();
  const { facts: { layers } } = await fitProbe(set, { ...options, draws: 1, features: [SHARED] });
  // 96 pictures of unseen people are too few for 1 %; four times as many are enough for that, not for 0.1 %.
  assert.deepEqual(layers[0].threshold, { fpr01: null, fpr001: null });
  const sets = [1, 2, 3, 4].map(syntheticSet);
  const values = sets.map(({ features }) => [...features.get(SHARED)!.data]).flat();
  const many: ActivationSet = {
    samples: sets.flatMap(({ samples }, i) =>
      samples.map((sample) => ({ ...sample, id: `${i}/${sample.id}`, scene: `${i}/${sample.scene}` }))
    ),
    features: new Map([[SHARED, { dim: DIM, data: Float32Array.from(values) }]]),
  };
  const { facts, tensors } = await fitProbe(many, { ...options, draws: 1, standardize: true });
  const { fpr01, fpr001 } = facts.layers[0].threshold!;
  assert.equal(fpr001, null);
  const probe = {
    ...facts,
    ...{ id: "p", title: "", mode: "sound" as const, content: "", prompt: "" },
    model: { name: "", hash: "", adapter: null },
    tensors,
  };
  // On 1,920 pictures of people and scenes never met, about 1 % of the unseen and many more of the seen lie above.
  const above = { U1: 0, U2: 0 }, fresh = Array.from({ length: 20 }, (_, i) => syntheticSet(100 + i));
  for (const { samples, features } of fresh) {
    const { data } = features.get(SHARED)!;
    samples.forEach(({ set }, i) => {
      const [{ score }] = scoreProbe(probe, { [SHARED]: data.slice(i * DIM, (i + 1) * DIM) });
      if (score > fpr01!) above[set as "U1" | "U2"] += 1 / (20 * PEOPLE * SCENES);
    });
  }
  assert(above.U2 > 0.002 && above.U2 < 0.03, JSON.stringify(above));
  assert(above.U1 > 5 * above.U2, JSON.stringify(above));
});

Deno.test("fitting refuses unknown features, and stops when told", async () => {
  const set = syntheticSet(), fit = (more: object) => fitProbe(set, { ...options, ...more });
  await assert.rejects(fit({ primary: "x@last" }), /Cannot report "x@last" first: the features are layers.0/);
  await assert.rejects(fit({ features: ["x@last"] }), /Cannot fit "x@last": the set holds layers.0/);
  const controller = new AbortController();
  const stopping = fit({
    signal: controller.signal,
    onProgress: (done: number) => done === 5 && controller.abort(),
  });
  await assert.rejects(stopping, { name: "AbortError" });
});

Deno.test("deno task probe fit writes a probe that scores, and says what is wrong", async () => {
  const root = await Deno.makeTempDir();
  const probe = async (...args: string[]) => {
    const script = new URL("../scripts/probe.ts", import.meta.url).pathname;
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", script, ...args],
    })
      .output();
    return { code, out: new TextDecoder().decode(stdout), error: new TextDecoder().decode(stderr) };
  };
  try {
    const input = join(root, "activations"), out = join(root, "names"), set = syntheticSet();
    await writeActivations(new DiskFolder(input), set.samples, set.features, {
      parents: { model: "aa", run: "bb" },
      config: { model: "builtin:tiny", prompt: "who took this" },
    });
    const args = [
      "fit",
      "--activations",
      input,
      "--out",
      out,
      "--draws",
      "19",
      "--partitions",
      "4",
      "--center-scenes",
    ];
    const [table, json, help, wrong, badId] = await Promise.all([
      probe(...args),
      probe(
        ...args.with(4, join(root, "json")),
        "--json",
        "--mode",
        "faithful",
        "--split",
        "scene",
        "--primary",
        NAMES,
      ),
      probe("--help"),
      probe("guess"),
      probe(...args.with(4, join(root, "Bad Name"))),
    ]);
    assert.equal(table.code, 0, table.error);
    const lines = table.out.split("\n");
    assert.match(lines[0], /^feature +faithful +sound +null 95 % +p +p \(all layers\) +single picture$/);
    assert.match(lines[2], /^layers.0.resid_post@last +0\.\d{3} +0\.\d{3} +\[0\.\d{3}, 0\.\d{3}\]/);
    assert.match(lines[3], /^layers.1.resid_post@last \* .* 0.050 +0.050 /);

    const { tensors, ...facts } = await loadProbe(new DiskFolder(out));
    const fitted = await fitProbe(await readActivations(new DiskFolder(input)), {
      ...options,
      draws: 19,
      partitions: 4,
      calibrate: true,
    });
    assert.deepEqual(tensors, fitted.tensors);
    assert.deepEqual(facts.layers, fitted.facts.layers);
    assert.deepEqual([facts.id, facts.mode, facts.primary], ["names", "sound", SHARED]);
    assert.deepEqual(facts.model, { name: "builtin:tiny", hash: "aa", adapter: "bb" });
    assert.equal(facts.prompt, "who took this");

    const printed = storedProbeSchema.parse(JSON.parse(json.out));
    assert.deepEqual([printed.mode, printed.primary, printed.layers[0].metrics.faithful!.split], [
      "faithful",
      NAMES,
      "scene",
    ]);
    assert.equal(help.code, 0);
    assert.match(help.out, /fit .*\n.*score /);
    assert.deepEqual([wrong.code, badId.code], [2, 2]);
    assert.match(wrong.error, /Unknown verb "guess": expected "fit" or "score"/);
    assert.match(badId.error, /Cannot store a probe as "Bad Name": expected 1 to 64 of/);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
