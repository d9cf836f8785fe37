/**
 * Selectivity and description length on labels that can and cannot be learnt without knowing people, power against direct simulation,
 * and the blind baseline's pixels.
 */
import assert from "node:assert/strict";
import { controlLabels, selectivity } from "../core/probe/controls.ts";
import { studentT } from "../core/probe/student.ts";
import { descriptionLength } from "../core/probe/description.ts";
import { groupPeople } from "../core/probe/design.ts";
import { powerTable, spreadOf, varianceParts } from "../core/probe/power.ts";
import { sound } from "../core/probe/sound.ts";
import { Random } from "../core/random.ts";
import { blindPixels } from "../core/study/blind.ts";
import { simulate, type Simulated } from "./simulated_people.ts";

const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
const worldsOf = (count: number, how: Simulated) =>
  Array.from({ length: count }, (_, k) => simulate(new Random(21, `controls/${k}`), { dim: 24, ...how }));

Deno.test("labels that only knowing people tells are learnt, and so is the control: no selectivity", () => {
  const names = worldsOf(60, { scenes: 6, own: 3 }).map(({ x, design }, k) =>
    selectivity(x, design, { tasks: 5, centerScenes: true }, new Random(k))
  );
  assert(mean(names.map(({ task }) => task)) > 0.95);
  assert(Math.abs(mean(names.map(({ value }) => value))) < 0.01);
  const trace = worldsOf(30, { scenes: 6, own: 0, shared: 3 }).map(({ x, design }, k) =>
    selectivity(x, design, { tasks: 5, centerScenes: true }, new Random(k))
  );
  assert(mean(trace.map(({ value }) => value)) > 0.25, `${mean(trace.map(({ value }) => value))}`);
  for (const { task, control, value } of trace) assert.equal(value, task - control);
});

Deno.test("the interval of selectivity holds 0 where the sets are one more labelling, and its mean elsewhere", () => {
  for (const how of [{ own: 0.8 }, { own: 0.8, shared: 1 }]) {
    const worlds = worldsOf(150, { scenes: 4, dim: 6, ...how });
    const found = worlds.map(({ x, design }, k) =>
      selectivity(x, design, { tasks: 5, splits: 3, centerScenes: true }, new Random(k))
    );
    const truth = how.shared ? mean(found.map(({ value }) => value)) : 0;
    const covered = mean(found.map(({ ci95: [low, high] }) => Number(low <= truth && truth <= high)));
    // Three standard errors of 150 worlds are 5.3 points, beside the two that are allowed.
    assert(Math.abs(covered - 0.95) <= 0.073, `${covered} at ${JSON.stringify(how)}`);
  }
});

Deno.test("control labels keep people whole and their numbers; Student's quantiles are scipy's", () => {
  const { design } = simulate(new Random(1), { people: 5 }), people = groupPeople(design);
  const labels = controlLabels(people, design.labels.length, new Random(3));
  const sides = people.rows.map((rows) => new Set(Array.from(rows, (row) => labels[row])));
  assert(sides.every(({ size }) => size === 1));
  assert.equal(sides.filter((side) => side.has(1)).length, 5);
  assert.notDeepEqual(labels, design.labels);
  const scipys = [
    [1, 12.706204736175],
    [4, 2.776445105198],
    [11, 2.200985160092],
    [50, 2.008559112101],
    [1000, 1.962339080826],
  ];
  for (const [df, t] of scipys) {
    assert(Math.abs(studentT(df) - t) < 1e-9, `${df}: ${studentT(df)}`);
  }
  const { x } = simulate(new Random(1), { people: 5 });
  assert.throws(
    () => selectivity(x, design, { tasks: 1 }, new Random(0)),
    /1 control tasks: expected at least 2/,
  );
});

Deno.test("a shared direction shortens the labels' description; people's own do not, unless rows may recognise them", () => {
  const lengths = (how: Simulated, unit: "person" | "row") =>
    worldsOf(20, { scenes: 6, ...how }).map(({ x, design }, k) =>
      descriptionLength(
        x,
        design,
        { centerScenes: true, standardize: true, unit, orders: 2, tasks: 2 },
        new Random(k),
      )
    );
  const names = lengths({ own: 3 }, "person"), byRow = lengths({ own: 3 }, "row");
  const trace = lengths({ own: 0.3, shared: 3 }, "person");
  for (const { bits, uniform, compression } of names) assert.equal(compression, uniform / bits);
  assert.equal(names[0].uniform, 96);
  const compressions = [names, byRow, trace].map((all) => mean(all.map(({ compression }) => compression)));
  assert(Math.abs(compressions[0] - 1) < 0.05, `by person ${compressions[0]}`);
  assert(compressions[1] > 1.3, `by row ${compressions[1]}`);
  assert(compressions[2] > 1.3, `shared ${compressions[2]}`);
  // The control's labels cost what they must, and as much as those of names.
  assert(Math.abs(mean(names.map(({ bits, control }) => bits - control))) < 3);
  assert(mean(trace.map(({ bits, control }) => control - bits)) > 20);
});

Deno.test("description lengths as worked out by hand", () => {
  const { x, design } = simulate(new Random(1), { people: 4, scenes: 2 });
  const nothing = { ...x, data: new Float32Array(x.data.length) };
  // Constant rows teach nothing: a bit for each of 16 rows, and two that name one of four penalties.
  const empty = descriptionLength(nothing, design, {}, new Random(2));
  assert(Math.abs(empty.bits - 18) < 1e-9 && Math.abs(empty.control - 18) < 1e-9, JSON.stringify(empty));
  // A label that stands in the rows costs the first pair's four bits, the two, and next to nothing more.
  const written = {
    ...x,
    data: x.data.map((_, at) => at % x.dim ? 0 : design.labels[Math.floor(at / x.dim)] ? 50 : -50),
  };
  const { bits } = descriptionLength(written, design, {}, new Random(2));
  assert(bits > 6 && bits < 6.01, `${bits}`);
});

Deno.test("variance is split into between and within as worked out by hand", () => {
  // Means 2 and 6: 2 * (2^2 + 2^2) / 1 = 16 between, (1 + 1 + 1 + 1) / 2 = 2 within, (16 - 2) / 2 = 7.
  assert.deepEqual(varianceParts([Float64Array.of(1, 3), Float64Array.of(5, 7)]), { between: 7, within: 2 });
  assert.deepEqual(varianceParts([Float64Array.of(1, 3), Float64Array.of(1, 3)]), { between: 0, within: 2 });
});

Deno.test("the power table's effect is found in about 80 % of studies of another size", async () => {
  const small = { people: 6, scenes: 4 }, large = { people: 12, scenes: 4 };
  const options = { centerScenes: true, standardize: true, partitions: 4 };
  let detectable = 0;
  for (let k = 0; k < 10; k++) {
    const { x, design } = simulate(new Random(31, `pilot/${k}`), small);
    const { nullDraws } = await sound(x, design, { ...options, draws: 39, seed: k });
    const [row] = powerTable(spreadOf(x, design, nullDraws, options, new Random(k)), [large]);
    detectable += row.detectable / 10;
  }
  // A shift whose expected AUROC is the predicted one, found by halving on worlds of their own.
  const auroc = async (shared: number) => {
    let sum = 0;
    for (let k = 0; k < 60; k++) {
      const { x, design } = simulate(new Random(32, `shift/${k}`), { ...large, shared });
      sum += (await sound(x, design, { ...options, draws: 1, seed: k })).auroc / 60;
    }
    return sum;
  };
  let low = 0, high = 3;
  for (let step = 0; step < 6; step++) {
    const middle = (low + high) / 2;
    if (await auroc(middle) < detectable) low = middle;
    else high = middle;
  }
  let found = 0;
  const worlds = 60;
  for (let k = 0; k < worlds; k++) {
    const { x, design } = simulate(new Random(33, `study/${k}`), { ...large, shared: (low + high) / 2 });
    if ((await sound(x, design, { ...options, draws: 39, seed: k })).p <= 0.05) found++;
  }
  // Two standard errors of 60 studies are 10 points; 39 draws cost a little power.
  assert(
    Math.abs(found / worlds - 0.8) <= 0.13,
    `${found} of ${worlds} at an expected AUROC of ${detectable}`,
  );
});

Deno.test("more people and more scenes find smaller effects", () => {
  const spread = { people: 8, scenes: 24, nullMean: 0.49, nullDeviation: 0.08, between: 0.3 };
  const table = powerTable(
    spread,
    [4, 8, 16].flatMap((people) => [6, 24].map((scenes) => ({ people, scenes }))),
  );
  const values = table.map(({ detectable }) => detectable);
  for (let i = 0; i < 3; i++) assert(values[2 * i] > values[2 * i + 1]);
  for (let i = 0; i < 4; i++) assert(values[i] > values[i + 2]);
  // By hand at the size measured: .49 + 1.645 * .08 = .6216 = t - .8416 * .16 sqrt(t (1 - t)) gives t = .6842.
  assert(Math.abs(values[3] - 0.6842) < 5e-5, `${values[3]}`);
  // All variance between people: more pictures of them help nothing.
  const [few, many] = powerTable({ ...spread, between: 1 }, [{ people: 8, scenes: 6 }, {
    people: 8,
    scenes: 96,
  }]);
  assert.equal(few.detectable, many.detectable);
});

Deno.test("blind pixels are the means of cells, row by row", () => {
  const picture = { width: 4, height: 2, data: Uint8Array.from({ length: 24 }, (_, i) => i) };
  const { dim, data } = blindPixels(
    [picture, { ...picture, data: picture.data.map((value) => value + 100) }],
    2,
  );
  // A cell is two pixels wide and one high: values 0 and 3 of the first channel, and so on.
  assert.equal(dim, 12);
  assert.deepEqual([...data.subarray(0, 12)], [
    1.5,
    2.5,
    3.5,
    7.5,
    8.5,
    9.5,
    13.5,
    14.5,
    15.5,
    19.5,
    20.5,
    21.5,
  ]);
  assert.equal(data[12], 101.5);
  assert.throws(() => blindPixels([]), /there is no picture/);
});
