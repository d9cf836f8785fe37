/**
 * The probe task end to end: an activation set with a known truth in, a table and a stored probe out, pictures scored.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { type ImageErrorCode } from "../core/image/image_error.ts";
import { type SampleRow } from "../core/probe/activations.ts";
import { defaultPrimary, featureRows, orderedFeatures, selectRows } from "../core/probe/selection.ts";
import { loadProbe } from "../core/probe/stored.ts";
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
