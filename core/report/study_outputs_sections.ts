/**
 * The sections of a study's page about gradients, about what models say, and about pictures: scatters, heat maps, examples.
 * A section whose data is missing is left out, heading and all.
 */
import { alignmentExcess } from "./study_claims.ts";
import { heatPicture, linesChart, type PointRow, pointsChart, scatterChart } from "./study_charts.ts";
import type { Group } from "./study_json.ts";
import { markup, table } from "./markup.ts";
import type { Mean } from "./study_numbers.ts";
import { meanOf } from "./study_numbers.ts";
import { firstParameters } from "./study_outputs.ts";
import { armName, both, meanText, NARROW, ofSeeds, PANEL, type Section, WIDE } from "./study_sections.ts";
import { between, fixed, signed } from "./words.ts";

const FLOORS: Record<string, string> = {
  order: "same data, other order",
  reencode: "re-encoded only",
  neutral: "neutral text",
  private: "private text",
  "other-person": "another person's text",
  "image-augmented": "picture augmented",
  "text-augmented": "question reworded",
};
const versionName = (version: string): string => FLOORS[version] ?? version;
const point = (x: string | number, series: string, { value, ci95 }: Mean): PointRow => ({
  x,
  series,
  value,
  ci95,
});

export async function gradients({ gradients }: Group): Promise<Section> {
  if (!gradients) return false;
  const first = firstParameters(gradients), { rows, alignment, noise_scale, trajectory, skipped } = gradients;
  const own = rows.filter(({ parameters }) => parameters === first);
  const curve = (of: "cosine" | "norm_ratio") =>
    own.map((row) => point(row.batch, versionName(row.version), row[of]));
  const cosines = own.length > 0 && await both((width) =>
    pointsChart(curve("cosine"), {
      title: "Cosine to the clean gradient by batch size",
      xTitle: "pictures in a mini-batch",
      yTitle: "cosine to the clean gradient",
    }, width)
  );
  const ratios = own.length > 0 && await both((width) =>
    pointsChart(curve("norm_ratio"), {
      title: "Norm ratio to the clean gradient by batch size",
      xTitle: "pictures in a mini-batch",
      yTitle: "norm over the clean one’s",
      zero: 1,
    }, width)
  );
  const aligned = alignment.length > 0 &&
    await both((width) =>
      pointsChart(alignment.map((row) => point(row.batch, row.version, row.mean)), {
        title: "Alignment with the private direction by batch size",
        xTitle: "pictures in a mini-batch",
        yTitle: "cosine to the direction",
        zero: 0,
      }, width)
    );
  const excess = alignmentExcess(gradients).map(({ batch, seeds }) => [
    String(batch),
    meanText(meanOf(seeds), 3, true),
  ]);
  const paths = Map.groupBy(trajectory.filter(({ parameters }) => parameters === first), ({ arm }) => arm);
  const path = paths.size > 0 && await both((width) =>
    linesChart(
      [...paths].map(([name, steps]) => ({
        name: `${name} against clean`,
        points: steps.map(({ step, cosine }) => ({ x: step, y: cosine.value })),
      })),
      { title: "Cosine along two trajectories", xTitle: "step", yTitle: "cosine at the same step" },
      width,
    )
  );
  const difference = gradients.difference.map(({ batch, parameters, mean, estimates }) => [
    `${batch}`,
    parameters,
    meanText(mean, 3, true),
    `${estimates.filter(({ ci95 }) => ci95[0] > 0 || ci95[1] < 0).length} of ${estimates.length}`,
  ]);
  const noise = noise_scale.map(({ version, seeds }) => [
    versionName(version),
    ...seeds.map(({ value, ci95: [low, high] }) =>
      value === null
        ? "beyond measure"
        : `${fixed(value, 1)} (${low === null ? "?" : fixed(low, 1)} to ${
          high === null ? "∞" : fixed(high, 1)
        })`
    ),
  ]);
  const others = rows.filter(({ parameters }) => parameters !== first).map((row) => [
    row.parameters,
    versionName(row.version),
    String(row.batch),
    meanText(row.cosine, 3),
    meanText(row.norm_ratio, 3),
  ]);
  return markup`<h3>Gradients of mini-batches</h3>
<p>The same mini-batches with and without private text, and with changes that are not private: the floors. Only where private text
departs from neutral text of the same look is there anything that is about its being private.</p>
${
    cosines &&
    markup`<figure>${cosines}<figcaption>Cosine to the clean gradient, parameters: ${first}; 95 % intervals ${
      gradients.seeds.length > 1 ? "over seeds" : "over mini-batches"
    }.</figcaption></figure>\n`
  }
${
    table(
      ["batch", "parameters", "private − neutral", "interval without 0"],
      difference,
      "Cosine of private text less that of neutral text, paired by mini-batch; last: seeds",
    )
  }
${
    ratios &&
    markup`<figure>${ratios}<figcaption>Norm of the gradient over the clean one’s.</figcaption></figure>\n`
  }
${
    aligned &&
    markup`<figure>${aligned}<figcaption>Cosine of a mini-batch’s gradient with the direction that private content adds on
average over other pictures; “excess” is what a version’s gradient has more than the clean one.</figcaption></figure>
${
      table(
        ["batch", "private − neutral"],
        excess,
        "The same, private less neutral: the claim is that it is large for small batches",
      )
    }\n`
  }
${
    path &&
    markup`<figure>${path}<figcaption>Two tunings with the same seed and order, step by step.</figcaption></figure>\n`
  }
${
    noise.length > 0 &&
    table(
      ["version", ...gradients.seeds.map((seed) => `seed ${seed}`)],
      noise,
      "Gradient-noise scale in samples (McCandlish et al. 2018)",
    )
  }
${
    others.length > 0 &&
    markup`<details><summary>Other parameter sets</summary>${
      table(["parameters", "version", "batch", "cosine", "norm ratio"], others, "By parameter set")
    }</details>\n`
  }
${
    skipped.length > 0 &&
    markup`<p class="quiet">${skipped.map(({ parameters, why }) => `${parameters}: ${why}. `)}</p>\n`
  }`;
}

/** Exposure of a rank drawn by lot, on average. */
const chanceBits = (candidates: number): number =>
  Array.from({ length: candidates }, (_, i) => Math.log2(candidates / (i + 1))).reduce((a, b) => a + b) /
  candidates;

export async function outputs({ says, arms }: Group): Promise<Section> {
  const vqa = arms.flatMap((arm) =>
    arm.vqa
      ? [[
        armName(arm),
        ...(["exact", "vqa_soft", "yes_no", "loss"] as const).map((name) => {
          const [before, after] = [arm.vqa!.before[name], arm.vqa!.after[name]];
          return before && after ? `${fixed(before.value)} → ${fixed(after.value)}` : "";
        }),
      ]]
      : []
  );
  const answers = vqa.length > 0 &&
    table(
      ["arm", "exact", "VQA soft", "yes/no", "loss"],
      vqa,
      "Answers on held-out pictures, before → after tuning",
    );
  if (says.length === 0) return answers && markup`<h3>What the models say</h3>\n${answers}`;
  const rows = says.flatMap(({ arm, exposure }) => exposure.map((row) => ({ arm, ...row })));
  // The question where the arm gives most away: both sets are shown under the same one.
  const strongest = says.map(({ arm, exposure }) => ({
    arm,
    row: exposure.filter(({ field }) => field === "username").reduce((a, b) =>
      b.difference.value > a.difference.value ? b : a
    ),
  }));
  const chart = await both((width) =>
    pointsChart(
      strongest.flatMap(({ arm, row }) => [point(arm, "seen", row.seen), point(arm, "unseen", row.unseen)]),
      { title: "Exposure of names by arm", xTitle: "", yTitle: "exposure in bits", zero: 0 },
      width,
    )
  );
  const attacks = [...new Set(says.flatMap(({ attacks }) => attacks.map(({ attack }) => attack)))];
  return markup`<h3>What the models say</h3>
<figure>${chart}<figcaption>How far up the true name stands among ${
    String(says[0].candidates)
  } candidates, under the question and with or without the
person shown, whichever sets seen and unseen most apart; around ${
    fixed(chanceBits(says[0].candidates), 1)
  } bits is chance.</figcaption></figure>
<details><summary>Every question</summary>
${
    table(
      ["arm", "field", "question", "shown", "seen", "unseen", "difference", "p ≤ .05"],
      rows.map((row) => [
        row.arm,
        row.field,
        row.question,
        row.shown ? "yes" : "no",
        meanText(row.seen, 1),
        meanText(row.unseen, 1),
        meanText(row.difference, 1, true),
        ofSeeds(row.p),
      ]),
      "Exposure in bits: log2 of the candidates over the rank of the truth (Carlini et al. 2019)",
    )
  }
</details>
${
    table(
      ["arm", ...attacks],
      says.map(({ arm, attacks: own }) => [
        arm,
        ...attacks.map((name) => {
          const found = own.find(({ attack }) => attack === name);
          return found ? markup`${meanText(found.auroc)}<br>${ofSeeds(found.p)}` : "";
        }),
      ]),
      "Attacks on membership that read outputs or gradients: AUROC over people, and seeds with p ≤ .05",
    )
  }
${answers}`;
}

export async function scatters({ scatters, primary }: Group): Promise<Section> {
  if (scatters.length === 0) return false;
  const figures = await Promise.all(
    scatters.map(async ({ arm, seed, sets, pca, tsne, explained }) =>
      markup`<figure><h3>${arm}</h3><span class="quiet">seed ${seed}</span>
${await scatterChart(pca, sets, {
        title: `Principal components of ${arm}`,
        axes: [`PC 1 (${fixed(100 * explained[0], 0)} %)`, `PC 2 (${fixed(100 * explained[1], 0)} %)`],
      }, PANEL)}
${await scatterChart(tsne, sets, { title: `t-SNE of ${arm}`, axes: ["t-SNE 1", "t-SNE 2"] }, PANEL)}</figure>
`
    ),
  );
  return markup`<h3>Seen and unseen in two dimensions</h3>
<p>${primary.feature} of every probed picture: principal components, and t-SNE of at most 100 of them (started from the first two, seed 42),
as the published study draws it. Clusters are people and scenes as a rule; that a set shows in such a picture is no test.</p>
<div class="panels">
${figures}</div>
`;
}

export function heat({ heatMaps }: Group): Section {
  const drawn = heatMaps.filter(({ values }) => values), arms = [...Map.groupBy(drawn, ({ arm }) => arm)];
  if (arms.length === 0) return false;
  const figures = arms.map(([arm, maps]) => {
    const most = Math.max(...maps.flatMap(({ values }) => values!.map(Math.abs)));
    return markup`<figure><h3>${arm}</h3><div class="pair">${
      maps.map((map) =>
        markup`<div>${heatPicture(map, most)}<div class="tag">${map.person} (${map.set}), log-odds ${
          signed(map.score ?? 0)
        }</div></div>`
      )
    }</div><figcaption>seed ${maps[0].seed}; the deepest colour is ${
      fixed(most)
    } in log-odds</figcaption></figure>\n`;
  });
  return markup`<h3>Where the probe’s evidence lies</h3>
<p>What each image token adds to the log-odds of “seen”, by the probe fitted on all people at ${
    drawn[0].feature
  }: orange speaks for seen, blue against; the box is the
watermark. The probe was fitted on these people, so this shows where it looks, not that it is right.</p>
<div class="examples">
${figures}</div>
`;
}

/** The first arm's pictures: all arms share them. */
export function examples({ heatMaps }: Group): Section {
  const first = heatMaps.filter(({ arm, seed }) => arm === heatMaps[0].arm && seed === heatMaps[0].seed);
  return first.length > 0 && markup`<h3>The pictures</h3>
<div class="examples">
${
    first.map(({ clean, marked, person, set }) =>
      markup`<figure><div class="pair">
<div><img class="pixels" src="${clean}" alt="Held-out picture, clean"><div class="tag">clean</div></div>
<div><img class="pixels" src="${marked}" alt="The same with a watermark"><div class="tag">${person}, ${set}</div></div>
</div></figure>\n`
    )
  }</div>
`;
}

export async function training({ arms }: Group): Promise<Section> {
  const series = arms.filter(({ losses }) => losses.length > 1).map(({ name, losses }) => ({
    name,
    points: losses.map(({ step, loss }) => ({ x: step, y: loss })),
  }));
  if (series.length === 0) return false;
  const draw = (width: number) =>
    linesChart(series, { title: "Training loss by step", xTitle: "step", yTitle: "loss on answers" }, width);
  const ends = series.map(({ name, points }) => `${name} ${between([points[0].y, points.at(-1)!.y])}`).join(
    "; ",
  );
  return markup`<h3>Training</h3>
<figure><div class="wide">${await draw(WIDE)}</div><div class="narrow">${await draw(NARROW)}</div>
<figcaption>First seed, a sliding mean. Arms answer different questions, so only courses are to be compared. From first to last: ${ends}.</figcaption></figure>
`;
}
