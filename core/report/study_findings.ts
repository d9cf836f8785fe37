/**
 * What a study allows to be said and what it does not, as sentences made from its numbers at the primary feature.
 * A null is never turned into "nothing was remembered", nor a low p-value without its correction into a finding.
 */
import { type ArmTest, isFound, isSilent, RULES } from "./study_claims.ts";
import { firstParameters, type GradientNumbers } from "./study_outputs.ts";
import { between, fixed, list, plural, signed } from "./words.ts";

export interface Findings {
  may: string[];
  mayNot: string[];
}

/** How far the reading control must lift the image split above the compared arm to be called a jump. */
const JUMP = 0.1;

export function studyFindings(
  arms: readonly ArmTest[],
  gradients: GradientNumbers | null,
  seeds: readonly number[],
  comparedTo: string,
): Findings {
  const out: Findings = { may: [], mayNot: [] };
  for (const arm of arms) {
    if (arm.role === "positive") aboutPositive(out, arm);
    else if (arm.role === "control") aboutControl(out, arm);
    else if (arm.role === "reading") aboutReading(out, arm, arms.find(({ name }) => name === comparedTo));
    else aboutWatermarks(out, arm, comparedTo);
  }
  aboutCorrection(out, arms);
  aboutGradients(out, gradients);
  if (seeds.length < RULES.seeds) {
    out.mayNot.push(
      `Anything beyond these people: ${plural(seeds.length, "seed")} of people and pictures ${
        seeds.length > 1 ? "were" : "was"
      } run.`,
    );
  }
  out.mayNot.push(
    "That no person is remembered by name: the sound probe fits one direction for all people and is blind to memory that differs from person to person. Exposure is the test for that.",
    "Anything about other models: each table is about one model, one data set and one way to tune.",
  );
  return out;
}

/** "AUROC .91 (.84 to .97), p ≤ .05 in 5 of 5 seeds". */
function numbersOf({ numbers: { mean: { sound }, seeds } }: ArmTest): string {
  const hits = seeds.filter(({ p }) => p <= RULES.level).length;
  const interval = sound.ci95 ? ` (${between(sound.ci95)})` : "";
  return `sound AUROC ${fixed(sound.value)}${interval}, p ≤ .05 in ${hits} of ${
    plural(seeds.length, "seed")
  }`;
}

const lows = ({ numbers }: ArmTest): number => numbers.seeds.filter(({ p }) => p <= RULES.level).length;

function aboutPositive(out: Findings, arm: ArmTest): void {
  const said = arm.says?.exposure.filter(({ p }) =>
    p.filter((x) => x <= RULES.level).length >= 0.8 * p.length
  );
  if (arm.name === "who") {
    if (said?.length) {
      const strongest = said.reduce((a, b) => b.difference.value > a.difference.value ? b : a);
      out.may.push(
        `Memory by name shows in exposure: tuned to name the photographer ("who"), the model ranks the true ${
          strongest.field === "username" ? "name" : "id"
        } of seen people ${signed(strongest.difference.value, 1)} bits${
          strongest.difference.ci95 ? ` (${between(strongest.difference.ci95, 1)})` : ""
        } higher than that of unseen ones. ` +
          (lows(arm) === 0
            ? `The sound probe does not see it (${
              numbersOf(arm)
            }): it is blind to memory without a shared direction.`
            : `The sound probe gives ${numbersOf(arm)}.`),
      );
    } else {
      out.mayNot.push(
        `Anything from low exposures of other arms: "who", tuned to name people, ${
          arm.says ? "shows no exposure of the seen people in nearly all seeds" : "was not asked about them"
        } (${numbersOf(arm)}).`,
      );
    }
    return;
  }
  if (lows(arm) >= 0.8 * arm.numbers.seeds.length) {
    out.may.push(
      `The instrument finds a shared trace of training: where training rewards knowing who was seen ("${arm.name}"), the sound probe tells seen from unseen people that it was never fitted on (${
        numbersOf(arm)
      }).`,
    );
  } else {
    out.mayNot.push(
      `Anything from the other arms' nulls: the positive control "${arm.name}" was not found in nearly all seeds (${
        numbersOf(arm)
      }).`,
    );
  }
}

function aboutControl(out: Findings, arm: ArmTest): void {
  const { faithful } = arm.numbers.mean, alarms = lows(arm);
  if (alarms > 0.2 * arm.numbers.seeds.length) {
    out.mayNot.push(
      `That low p-values are safe here: "${arm.name}" never saw a person's watermark and still gives ${
        numbersOf(arm)
      }.`,
    );
    return;
  }
  const above = faithful.ci95 !== null && faithful.ci95[0] > 0.5;
  out.may.push(
    `"${arm.name}", which never saw a person's watermark, stays quiet in the sound mode (${
      numbersOf(arm)
    }).` +
      (above
        ? ` The image split gives ${fixed(faithful.value)} (${
          between(faithful.ci95!)
        }): whatever lifts that above .5 is not memory.`
        : ""),
  );
}

function aboutReading(out: Findings, arm: ArmTest, compared: ArmTest | undefined): void {
  if (!compared) return;
  const [from, to] = [compared.numbers.mean.faithful.value, arm.numbers.mean.faithful.value];
  const move = `from ${fixed(from)} (${compared.name}) to ${fixed(to)}`;
  if (lows(arm) > 0.2 * arm.numbers.seeds.length) {
    out.mayNot.push(
      `That the sound probe is immune to better reading: "${arm.name}" never saw the people probed, and gives ${
        numbersOf(arm)
      }.`,
    );
  } else if (to - from >= JUMP) {
    out.may.push(
      `A high AUROC of the image split is no evidence of memory: "${arm.name}" never saw the people probed, it only learnt that watermarks are worth reading, and the image split goes ${move}; the sound probe does not follow (${
        numbersOf(arm)
      }).`,
    );
  } else {
    out.mayNot.push(
      `That reading alone imitates memory here: "${arm.name}" moves the image split ${move}, less than the ${
        fixed(JUMP)
      } fixed beforehand.`,
    );
  }
}

function aboutWatermarks(out: Findings, arm: ArmTest, comparedTo: string): void {
  const { difference } = arm.numbers.mean;
  const interval = difference?.ci95 ? `${signed(difference.value)} (${between(difference.ci95)})` : undefined;
  const to = interval ? `difference to ${comparedTo} ${interval}` : `not compared with ${comparedTo}`;
  if (isFound(arm.numbers)) {
    const silent = isSilent(arm.says);
    out.may.push(
      `"${arm.name}" carries a trace of its people: ${
        numbersOf(arm)
      }, ${to}, corrected for arms and features. ` +
        (silent === undefined
          ? "What the model says was not asked."
          : silent
          ? "What the model says does not give it away."
          : "What the model says gives it away too."),
    );
  } else {
    out.mayNot.push(
      `That the watermarks of "${arm.name}" are remembered, or that they are not: ${numbersOf(arm)}, ${to}` +
        (difference?.ci95
          ? `; lifts of more than ${
            fixed(Math.max(0, difference.ci95[1]))
          } are excluded, smaller ones are not.`
          : "."),
    );
  }
}

function aboutCorrection(out: Findings, arms: readonly ArmTest[]): void {
  const near = arms.filter((arm) =>
    arm.role === "watermark" && !isFound(arm.numbers) &&
    arm.numbers.seeds.some(({ p, p_all }) => p <= RULES.level && p_all > RULES.level)
  );
  if (near.length) {
    out.mayNot.push(
      `Anything from single low p-values of ${
        list(near.map(({ name }) => `"${name}"`))
      }: they do not survive the correction for all arms and features that were looked at.`,
    );
  }
}

function aboutGradients(out: Findings, gradients: GradientNumbers | null): void {
  if (!gradients) return;
  const first = firstParameters(gradients);
  const rows = gradients.difference.filter(({ parameters }) => parameters === first);
  if (rows.length === 0) return;
  const apart = rows.filter(({ mean: { ci95 } }) => ci95 && (ci95[0] > 0 || ci95[1] < 0));
  const says = (row: (typeof rows)[number]) =>
    `batch ${row.batch}: ${signed(row.mean.value, 3)}${
      row.mean.ci95 ? ` (${between(row.mean.ci95, 3)})` : ""
    }`;
  if (apart.length) {
    out.may.push(
      `Private and neutral text turn the gradient differently at ${apart.length} of ${
        plural(rows.length, "batch size")
      }, uncorrected: ${list(apart.map(says))}.`,
    );
  } else {
    out.mayNot.push(
      `That private text moves the gradient in a way of its own: at every batch size the interval of its cosine less that of neutral text contains 0 (${
        list(rows.map(says))
      }).`,
    );
  }
}
