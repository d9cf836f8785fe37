/**
 * Several studies side by side: every arm's primary numbers, one column a study, and what they differ by from the first.
 * Refuses a file that is no study's report.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import { markup, page, table } from "./markup.ts";
import { STUDY_STYLE } from "./study_style.ts";
import { STYLE } from "./style.ts";
import { fixed, plural, range, signed } from "./words.ts";

const interval = z.tuple([z.number(), z.number()]);
const mean = z.object({ value: z.number(), ci95: interval.nullable(), seeds: z.number() });
/** What a comparison needs of a `report.json`. */
const reportSchema = z.object({
  format: z.literal(1),
  name: z.string(),
  title: z.string(),
  comparedTo: z.string(),
  groups: z.array(z.object({
    model: z.string(),
    data: z.string(),
    batch: z.number(),
    primary: z.object({ prompt: z.string(), feature: z.string() }),
    features: z.array(z.object({
      arm: z.string(),
      prompt: z.string(),
      feature: z.string(),
      seeds: z.array(z.object({ p: z.number(), p_all: z.number() })),
      mean: z.object({ faithful: mean, sound: mean, difference: mean.optional() }),
    })),
    claims: z.array(z.object({ claim: z.number(), answer: z.string() })),
  })).min(1),
});
type Mean = z.infer<typeof mean>;

export interface Compared {
  /** "name: model, data, batch 8". */
  study: string;
  primary: string;
  comparedTo: string;
  claims: Record<number, string>;
  arms: Record<string, {
    faithful: Mean;
    sound: Mean;
    difference?: Mean;
    /** Seeds with p <= .05, uncorrected and corrected. */
    found: number;
    found_all: number;
    seeds: number;
  }>;
}

export interface Comparison {
  format: 1;
  studies: Compared[];
  /** Sound AUROC less that of the first study, where both have the arm; independent seeds, so variances add. */
  differences: { arm: string; study: string; value: number; ci95: [number, number] | null }[];
}

/** @param reports contents of `report.json`, with the name of each for messages */
export function compareStudies(reports: readonly { name: string; json: unknown }[]): Comparison {
  const studies = reports.flatMap(({ name, json }) => {
    const parsed = reportSchema.safeParse(json);
    if (!parsed.success) throw new InputError(`Cannot compare "${name}": ${issueOf(parsed.error)}`);
    return parsed.data.groups.map((group) => comparedOf(parsed.data, group));
  });
  const [first, ...others] = studies;
  return {
    format: 1,
    studies,
    differences: others.flatMap((other) =>
      Object.entries(other.arms).flatMap(([arm, { sound }]) => {
        const before = first.arms[arm]?.sound;
        if (!before) return [];
        const half = before.ci95 && sound.ci95
          ? Math.hypot(before.ci95[1] - before.ci95[0], sound.ci95[1] - sound.ci95[0]) / 2
          : null;
        const value = sound.value - before.value;
        return [{
          ...{ arm, study: other.study, value },
          ci95: half === null ? null : [value - half, value + half] as [number, number],
        }];
      })
    ),
  };
}

function comparedOf(
  { name, comparedTo }: z.infer<typeof reportSchema>,
  { model, data, batch, primary, features, claims }: z.infer<typeof reportSchema>["groups"][number],
): Compared {
  const low = (values: number[]) => values.filter((p) => p <= 0.05).length;
  const rows = features.filter((row) => row.prompt === primary.prompt && row.feature === primary.feature);
  return {
    study: `${name}: ${model}, ${data}, batch ${batch}`,
    primary: `${primary.prompt}/${primary.feature}`,
    comparedTo,
    claims: Object.fromEntries(claims.map(({ claim, answer }) => [claim, answer])),
    arms: Object.fromEntries(rows.map(({ arm, seeds, mean }) => [arm, {
      ...mean,
      found: low(seeds.map(({ p }) => p)),
      found_all: low(seeds.map(({ p_all }) => p_all)),
      seeds: seeds.length,
    }])),
  };
}

/** The page of a comparison. */
export function compareHtml({ studies, differences }: Comparison): string {
  const arms = [...new Set(studies.flatMap(({ arms }) => Object.keys(arms)))];
  const cell = (value: Mean, sign = false) => {
    const text = sign ? signed(value.value) : fixed(value.value);
    return value.ci95 ? markup`${text}<br><span class="role">${range(value.ci95)}</span>` : text;
  };
  const rows = arms.flatMap((arm) =>
    studies.flatMap(({ study, arms }) => {
      const found = arms[arm];
      if (!found) return [];
      const difference = differences.find((row) => row.arm === arm && row.study === study);
      return [[
        arm,
        study,
        cell(found.faithful),
        cell(found.sound),
        `${found.found} / ${found.found_all} of ${found.seeds}`,
        found.difference ? cell(found.difference, true) : "",
        difference ? cell({ ...difference, seeds: 0 }, true) : "",
      ]];
    })
  );
  const answers = studies.map(({ study, primary, comparedTo, claims }) => [
    study,
    primary,
    comparedTo,
    ...[1, 2, 3].map((claim) => claims[claim] ?? ""),
  ]);
  const title = `${plural(studies.length, "study").replace("studys", "studies")} compared`;
  return page(title, STYLE + STUDY_STYLE, [
    markup`<header><h1>${title}</h1></header>
<section><h2>Arm by arm</h2>
${
      table(
        ["arm", "study", "faithful", "sound", "p ≤ .05 / corrected", "to control", "to first study"],
        rows,
        "AUROC at each study’s own primary feature, means over seeds with 95 % intervals",
      )
    }
<p class="quiet">To control: the difference to the arm that the study compares with, over the same people. To first study: sound AUROC less
the first study’s; with intervals where both have several seeds, as of independent seeds.</p>
</section>
<section><h2>The three claims</h2>
${
      table(
        ["study", "primary feature", "control", "1", "2", "3"],
        answers,
        "Answers by the rules of docs/study.md",
      )
    }
</section>`,
  ]);
}
