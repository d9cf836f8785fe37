/**
 * The sections of the demo's report below its verdict: design, pictures, curves, probes, gradients, scores, provenance.
 * A section whose data is missing is left out, heading and all.
 */
import { aurocChart, gradientChart, lossChart } from "./charts.ts";
import { type Markup, markup, table } from "./markup.ts";
import { type Arm, type ArmRole, type DemoReport, resultOf } from "./schema.ts";
import { between, fixed, range, signed } from "./words.ts";

/** Widths of the charts in pixels; all of them shrink where there is less room. */
const WIDE = 880, NARROW = 340, PANEL = 272;

type Section = Markup | false;

const ROLES: Record<ArmRole, string> = {
  control: "control",
  watermark: "watermarks that do not matter",
  reading: "reading control",
  positive: "positive control",
};

/** An arm's name with its role below. */
export const armName = ({ name, role }: Arm): Markup =>
  markup`${name}<br><span class="role">${ROLES[role]}</span>`;

export function design({ design }: DemoReport): Section {
  const people = design.people.map(({ set, count, words }) =>
    markup`<li><strong>${set}</strong>, ${count} synthetic people: ${words}</li>\n`
  );
  const arms = design.arms.map((
    arm,
  ) => [armName(arm), arm.words, arm.steps === 0 ? "none" : String(arm.steps)]);
  return markup`<section>
<h2>Design</h2>
<ul>
${people}</ul>
<p>Every person of the two probed sets is drawn on the same ${design.scenes} held-out scenes, at the same places, so the
sets differ in nothing but their people. The sound probe averages ${design.partitions} partitions of the people into halves.</p>
${table(["arm", "tuned on", "steps"], arms, "The arms")}
<ul>
${design.notes.map((note) => markup`<li>${note}</li>\n`)}</ul>
</section>
`;
}

const png = (base64: string): string => `data:image/png;base64,${base64}`;

export function examples({ examples }: DemoReport): Section {
  const figures = examples.map(({ caption, clean, marked }) =>
    markup`<figure><div class="pair">
<div><img class="pixels" src="${png(clean)}" alt="${caption}, clean"><div class="tag">clean</div></div>
<div><img class="pixels" src="${
      png(marked)
    }" alt="${caption}, with watermark"><div class="tag">watermarked</div></div>
</div><figcaption>${caption}</figcaption></figure>
`
  );
  return examples.length > 0 && markup`<section>
<h2>The pictures</h2>
<p>Each picture without and with its watermark, enlarged; the pixels are what the model sees.</p>
<div class="examples">
${figures}</div>
</section>
`;
}

/** A chart for wide pages and one for narrow ones; the page shows one of them. */
const both = (wide: Markup, narrow: Markup): Markup =>
  markup`<div class="wide">${wide}</div><div class="narrow">${narrow}</div>`;

export async function losses({ losses }: DemoReport): Promise<Section> {
  if (losses.length === 0) return false;
  return markup`<section>
<h2>Training</h2>
<figure>${both(await lossChart(losses, WIDE), await lossChart(losses, NARROW))}
<figcaption>Loss on the answers, a sliding mean. Arms answer different questions, so only the course of each curve is to be
compared, not its height.</figcaption></figure>
</section>
`;
}

export async function probes(data: DemoReport): Promise<Section> {
  const { arms, comparedTo } = data.design;
  const panel = async (arm: Arm): Promise<Markup> =>
    markup`<figure><h3>${arm.name}</h3><span class="quiet">${ROLES[arm.role]}</span>${await aurocChart(
      data,
      arm,
      PANEL,
    )}</figure>
`;
  const rows = arms.flatMap(({ name }) =>
    data.features.flatMap(({ feature, label }) => {
      const result = resultOf(data, name, feature);
      if (!result) return [];
      const { faithful, sound, difference } = result;
      const to = difference ? signed(difference.value) : "";
      return [[
        name,
        label,
        fixed(faithful.auroc),
        fixed(sound.auroc),
        range(sound.null95),
        fixed(sound.p, 3),
        to,
      ]];
    })
  );
  const head = ["arm", "feature", "faithful", "sound", "null band", "p", `to ${comparedTo}`];
  return markup`<section>
<h2>Probes, layer by layer</h2>
<p>Each row is one feature: a layer and a way to pool it. The one set in bold was named beforehand; the others are shown so
that nothing is hidden, and with so many of them some will leave their bands by chance.</p>
<div class="key"><span class="k-sound">sound</span><span class="k-faithful">faithful</span><span class="k-band">the arm’s own
95 % null band (sound)</span><span class="k-half">chance</span></div>
<div class="panels">
${await Promise.all(arms.map(panel))}</div>
<details><summary>All numbers</summary>
${table(head, rows, "AUROC of every arm and feature; p uncorrected")}
</details>
</section>
`;
}

export async function gradients({ gradients }: DemoReport): Promise<Section> {
  if (!gradients) return false;
  const { perturbations, words } = gradients;
  const rows = gradients.rows.map(({ batch, batches, cosines, difference }) => [
    String(batch),
    String(batches),
    ...perturbations.map(({ key }) =>
      cosines[key] ? `${fixed(cosines[key].mean, 3)} (${between(cosines[key].ci95)})` : ""
    ),
    `${signed(difference.mean, 3)} (${between(difference.ci95)})`,
  ]);
  const head = ["batch", "n", ...perturbations.map(({ label }) => label), "private − neutral"];
  return markup`<section>
<h2>Gradients of mini-batches</h2>
<p>${words}</p>
<figure>${both(await gradientChart(gradients, WIDE), await gradientChart(gradients, NARROW))}
<figcaption>Mean cosine over mini-batches with 95 % intervals. The last column of the table is what counts: private text
against neutral text of the same look.</figcaption></figure>
${table(head, rows, "Cosine between the clean gradient and that of the changed pictures")}
</section>
`;
}

export function scores({ scores }: DemoReport): Section {
  const rows = scores.map(({ caption, seen, probe, feature, score, probability, png: image }) => [
    image ? markup`<img class="pixels thumb" src="${png(image)}" alt="">` : "",
    caption,
    seen ? "seen in training" : "never seen",
    markup`<code>${probe}</code><br><span class="role">${feature}</span>`,
    signed(score),
    fixed(probability),
  ]);
  return scores.length > 0 && markup`<section>
<h2>Single pictures, over HTTP</h2>
<p>The run stored its probes, started the service and asked it about these pictures. The probability is the logistic function
of the score and is not calibrated; the stored probe was fitted on these people, so the figures show that the service works,
not that anything is remembered.</p>
${
    table(
      ["", "picture", "truth", "probe", "score", "probability"],
      rows,
      "Answers of POST /v1/probes/{id}/score",
    )
  }
</section>
`;
}

export function reference({ reference, features, design }: DemoReport): Section {
  if (!reference) return false;
  const labelOf = new Map(features.map(({ feature, label }) => [feature, label]));
  const rows = reference.rows.map(({ arm, feature, faithful, sound, found }) => [
    arm,
    labelOf.get(feature) ?? feature,
    `${fixed(faithful.mean)} (${range(faithful.ci95)})`,
    `${fixed(sound.mean)} (${range(sound.ci95)})`,
    `${found} of ${reference.seeds}`,
  ]);
  const caption = `Means over ${reference.seeds} seeds with 95 % intervals; this run is seed ${design.seed}`;
  return markup`<section>
<h2>The same with other seeds</h2>
<p>${reference.words}</p>
${table(["arm", "feature", "faithful", "sound", "p ≤ .05"], rows, caption)}
</section>
`;
}

export function provenance({ provenance, design }: DemoReport): Section {
  const { command, adapter, stages, versions, hashes } = provenance;
  const facts = (entries: [string, string][]): Markup =>
    markup`<dl>${
      entries.map(([name, value]) => markup`<dt>${name}</dt><dd><code>${value}</code></dd>`)
    }</dl>`;
  return markup`<section>
<h2>How to make it again</h2>
<pre><code>${command}</code></pre>
${facts([["seed", String(design.seed)], ["adapter", adapter], ...Object.entries(versions)])}
<details><summary>Hashes and times</summary>
<h3>sha256</h3>
${facts(Object.entries(hashes))}
<h3>Seconds by stage</h3>
${facts(stages.map(({ name, seconds }) => [name, fixed(seconds, 1)]))}
</details>
</section>
`;
}
