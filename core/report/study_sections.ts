/**
 * The sections of a study's page about one model, data set and batch size: verdict, probes, controls and calibration.
 * A section whose data is missing is left out, heading and all.
 */
import { isFound, isSilent } from "./study_claims.ts";
import { layerChart, siteLabel } from "./study_charts.ts";
import type { ArmFacts, Group, StudyReport } from "./study_json.ts";
import { type Markup, markup, table } from "./markup.ts";
import type { FeatureNumbers, Mean } from "./study_numbers.ts";
import type { SaysNumbers } from "./study_outputs.ts";
import { between, fixed, plural, range, signed } from "./words.ts";

export type Section = Markup | false;
/** Widths of the charts in pixels; all of them shrink where there is less room. */
export const WIDE = 880, NARROW = 340, PANEL = 290;

const ROLES: Record<string, string> = {
  control: "control",
  watermark: "irrelevant watermarks",
  reading: "reading control",
  positive: "positive control",
};

export const armName = ({ name, role }: Pick<ArmFacts, "name" | "role">): Markup =>
  markup`${name}<br><span class="role">${ROLES[role]}</span>`;

/** A mean with its interval on a line of its own. */
export const meanText = (mean: Mean | undefined | null, digits = 2, sign = false): Markup | string => {
  if (!mean) return "";
  const value = sign ? signed(mean.value, digits) : fixed(mean.value, digits);
  return mean.ci95 ? markup`${value}<br><span class="role ci">${between(mean.ci95, digits)}</span>` : value;
};

export const ofSeeds = (values: readonly number[], level = 0.05): string =>
  `${values.filter((p) => p <= level).length} of ${values.length}`;

/** A chart for wide pages and one for narrow ones; the page shows one of them. */
export async function both(draw: (width: number) => Promise<Markup>): Promise<Markup> {
  return markup`<div class="wide">${await draw(WIDE)}</div><div class="narrow">${await draw(NARROW)}</div>`;
}

export function primaryRow({ features, primary }: Group, arm: string): FeatureNumbers | undefined {
  return features.find((row) =>
    row.arm === arm && row.prompt === primary.prompt && row.feature === primary.feature
  );
}

const ANSWERS = { yes: "Yes", no: "No", undecided: "Undecided" };

export function claims({ claims, findings }: Group): Section {
  const items = (sentences: string[]) => sentences.map((sentence) => markup`<li>${sentence}</li>\n`);
  return markup`<h3>The three claims</h3>
<div class="claims">
${
    claims.map(({ claim, text, answer, because }) =>
      markup`<div class="claim ${answer}"><span class="answer">${
        ANSWERS[answer]
      }</span><p><strong>${claim}.</strong> ${text}</p><p class="quiet">${because}</p></div>\n`
    )
  }</div>
<p class="quiet">By rules that were written down before any result was seen (docs/study.md), for this model and this data only.</p>
<div class="verdicts">
<div class="verdict"><h3>What may be concluded</h3><ul>
${items(findings.may)}</ul></div>
<div class="verdict no"><h3>What may not be concluded</h3><ul>
${items(findings.mayNot)}</ul></div>
</div>
`;
}

/** Arm by arm at the primary feature: both modes, the band, corrected p-values, the difference to the control. */
export function primary(group: Group, comparedTo: string): Section {
  const rows = group.arms.flatMap((arm) => {
    const found = primaryRow(group, arm.name);
    if (!found) return [];
    const { mean, seeds, together } = found;
    return [[
      armName(arm),
      meanText(mean.faithful),
      meanText(mean.sound),
      range(together.null95),
      ofSeeds(seeds.map(({ p }) => p)),
      ofSeeds(seeds.map(({ p_layers }) => p_layers)),
      ofSeeds(seeds.map(({ p_all }) => p_all)),
      meanText(mean.difference, 2, true),
      seeds[0].difference ? ofSeeds(seeds.map(({ difference }) => difference?.p_all ?? 1)) : "",
    ]];
  });
  const head = [
    "arm",
    "faithful",
    "sound",
    "null band",
    "p ≤ .05",
    "… layers",
    "… all",
    `to ${comparedTo}`,
    "… all",
  ];
  const perSeed = group.arms.flatMap(({ name }) =>
    (primaryRow(group, name)?.seeds ?? []).map((one) => [
      name,
      String(one.seed),
      fixed(one.faithful),
      fixed(one.sound),
      range(one.ci95),
      range(one.null95),
      fixed(one.p, 3),
      fixed(one.p_all, 3),
      one.difference ? `${signed(one.difference.value)} (${range(one.difference.ci95)})` : "",
      one.difference ? fixed(one.difference.p_all, 3) : "",
    ])
  );
  const many = group.seeds.length > 1;
  return markup`<h3>Probes at the primary feature</h3>
${
    table(
      head,
      rows,
      `AUROC at ${group.primary.feature} under the prompt "${group.primary.prompt}", named before any result; means over ${
        plural(group.seeds.length, "seed")
      }`,
    )
  }
<p class="quiet">Faithful: the probe is fitted and tested on different pictures of the same people, as published. Sound: it is
tested on people it was never fitted on. ${
    many
      ? "Intervals are Student’s over seeds, which have people and pictures of their own; the band holds 95 % of the mean over seeds when labels are dealt to people by lot."
      : "Intervals are those of this one seed; the band holds 95 % of what it gives when labels are dealt to people by lot."
  } p ≤ .05 counts seeds: uncorrected, corrected for the arm’s layers (“layers”), for all arms and features (“all”).</p>
<details><summary>Seed by seed</summary>
${
    table(
      ["arm", "seed", "faithful", "sound", "95 %", "null band", "p", "p all", `to ${comparedTo}`, "p all"],
      perSeed,
      "Every seed at the primary feature",
    )
  }
</details>
`;
}

/** Probe against prompt, in one table: what a probe finds and what the model says. */
export function probeAgainstPrompt(group: Group): Section {
  if (group.says.length === 0) return false;
  const verdict = (numbers: FeatureNumbers, says: SaysNumbers): string => {
    const silent = isSilent(says), found = isFound(numbers);
    return found ? silent ? "found, not said" : "found and said" : silent ? "neither" : "said, not found";
  };
  const rows = group.arms.flatMap((arm) => {
    const numbers = primaryRow(group, arm.name), says = group.says.find((row) => row.arm === arm.name);
    if (!numbers || !says) return [];
    const best = (field: string) => {
      const rows = says.exposure.filter((row) => row.field === field);
      return rows.length ? rows.reduce((a, b) => b.difference.value > a.difference.value ? b : a) : undefined;
    };
    const bits = (field: string) => {
      const row = best(field);
      return row ? markup`${meanText(row.difference, 1, true)}<br>${ofSeeds(row.p)}` : "";
    };
    const loss = says.attacks.find(({ attack }) => attack === "loss");
    const { vqa } = arm;
    return [[
      armName(arm),
      markup`${meanText(numbers.mean.sound)}<br>${ofSeeds(numbers.seeds.map(({ p_all }) => p_all))}`,
      `${fixed(says.named.seen.value)} / ${fixed(says.named.unseen.value)}`,
      `${fixed(says.says_seen.seen.value)} / ${fixed(says.says_seen.unseen.value)}`,
      bits("username"),
      bits("user_id"),
      loss ? markup`${meanText(loss.auroc)}<br>${ofSeeds(loss.p)}` : "",
      vqa ? `${fixed(vqa.before.exact.value)} → ${fixed(vqa.after.exact.value)}` : "",
      verdict(numbers, says),
    ]];
  });
  const head = [
    "arm",
    "sound probe",
    "named",
    "“seen”",
    "name, bits",
    "id, bits",
    "loss attack",
    "answers right",
    "",
  ];
  return markup`<h3>Probe against prompt</h3>
<p>“Memorised though not said” would be an arm whose probe is found while nothing it says tells the seen people from the unseen.</p>
${table(head, rows, "What the probe finds, beside what the model says about the same people")}
<p class="quiet">Probe: AUROC, and seeds with p ≤ .05 corrected for all arms and features. Named: share of seen / unseen people
whose name or id was said exactly with the person shown. “Seen”: share of yes to having seen the person. Bits: exposure of the seen less
that of the unseen under the question where it is largest, and seeds with p ≤ .05. Loss attack: AUROC of the loss on the people’s own
pictures. Answers right: exact match on held-out pictures, before and after.</p>
`;
}

/** Curves over layers, one panel an arm; reductions with few sites are in the table alone. */
export async function layers(group: Group): Promise<Section> {
  const { features, primary } = group;
  const lowest = Math.min(
    0.3,
    ...features.flatMap(({ mean, together, seeds }) => [
      mean.faithful.value,
      mean.sound.value,
      together.null95[0],
      ...seeds.map(({ sound }) => sound),
    ]),
  );
  const reduction = primary.feature.split("@")[1];
  const panels = (rows: readonly FeatureNumbers[]) =>
    Promise.all(group.arms.map(async (arm) => {
      const own = rows.filter((row) => row.arm === arm.name);
      return own.length > 0 &&
        markup`<figure><h3>${arm.name}</h3><span class="quiet">${ROLES[arm.role]}</span>${await layerChart(
          own,
          lowest,
          PANEL,
        )}</figure>\n`;
    }));
  const combinations = [...Map.groupBy(features, (row) => `${row.prompt} ${row.reduction}`).values()];
  const isPrimary = (rows: readonly FeatureNumbers[]) =>
    rows[0].prompt === primary.prompt && rows[0].reduction === reduction;
  const main = combinations.find(isPrimary)!;
  const others = combinations.filter((rows) =>
    !isPrimary(rows) && new Set(rows.map(({ site }) => site)).size > 1
  );
  const numbers = features.map((row) => [
    row.arm,
    markup`${siteLabel(row.site)} <span class="role">${row.reduction}, ${row.prompt}</span>`,
    meanText(row.mean.faithful),
    meanText(row.mean.sound),
    range(row.together.null95),
    ofSeeds(row.seeds.map(({ p }) => p)),
    ofSeeds(row.seeds.map(({ p_all }) => p_all)),
    meanText(row.mean.difference, 2, true),
    fixed(row.mean.plain.value),
  ]);
  const head = [
    "arm",
    "feature",
    "faithful",
    "sound",
    "null band",
    "p ≤ .05",
    "… all",
    "difference",
    "uncentred",
  ];
  return markup`<h3>Layer by layer</h3>
<p>The residual stream under the prompt “${primary.prompt}”, read as ${reduction}. Large points are means over seeds, small ones single seeds.</p>
<div class="key"><span class="k-sound">sound</span><span class="k-faithful">faithful</span><span class="k-band">95 % null band of the
mean (sound)</span><span class="k-half">chance</span></div>
<div class="panels">
${await panels(main)}</div>
${await Promise.all(
    others.map(async (rows) =>
      markup`<details><summary>Read as ${rows[0].reduction} under “${
        rows[0].prompt
      }”</summary><div class="panels">
${await panels(rows)}</div></details>\n`
    ),
  )}
<details><summary>All numbers</summary>
${table(head, numbers, "Every arm and feature; uncentred: the sound way without taking scenes’ means away")}
</details>
`;
}

/** Who is who, and what each arm was tuned on. */
export function design({ groups, comparedTo, config }: StudyReport): Section {
  const [first] = groups;
  const arms = first.arms.map((arm) => [
    armName(arm),
    arm.words,
    arm.steps ? String(arm.images) : "none",
    arm.steps ? String(arm.steps) : "none",
    arm.steps ? arm.lr.toExponential(1) : "",
    arm.marked === null ? "" : String(arm.marked),
  ]);
  const { probe } = config;
  return markup`<section>
<h2>Design</h2>
<p>Synthetic people of two sets, ${
    String(config.people)
  } people each, drawn by one generator and disjoint in every identifying
field. U1 is written on training pictures, U2 never is (except in the arm swap, where they change places). For every seed there are
other people, pictures and adapters. Each person of both sets is drawn on the same ${probe.scenes} held-out pictures at the same places, so the
sets differ in nothing but their people. Arms are compared with ${comparedTo}: tuned on the same task without any watermark.</p>
<ul>
<li>Models: ${
    groups.map(({ model }) => model).filter((name, i, all) => all.indexOf(name) === i).join(", ")
  }; data: ${
    groups.map(({ data }) => data).filter((name, i, all) => all.indexOf(name) === i).join(", ")
  }; batch sizes: ${config.batchSizes.join(", ")}; seeds: ${config.seeds.join(", ")}.</li>
<li>Sound probe: ${
    plural(probe.partitions, "partition")
  } of the people into halves, ${probe.draws} permutations of people, each
refitted; C ${
    probe.cGrid.length ? `one of ${probe.cGrid.join(", ")}, chosen among people left out` : `= ${probe.c}`
  }${
    probe.centerScenes ? "; every scene’s mean taken away" : ""
  }. Faithful probe: split by ${probe.faithful.split}, seed ${probe.faithful.seed}.</li>
<li>${
    first.arms.find(({ parameters }) => parameters)?.parameters?.toLocaleString("en-US") ?? "Unknown"
  } parameters, ${
    first.arms.find(({ trained }) => trained)?.trained?.toLocaleString("en-US") ?? "0"
  } of them trained.</li>
</ul>
${
    table(
      ["arm", "tuned on", "pictures", "steps", "lr", "marked"],
      arms,
      `The arms (${first.model}, ${first.data})`,
    )
  }
</section>
`;
}
