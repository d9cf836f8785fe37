/**
 * What a demo run allows to be said and what it does not, as sentences made from its numbers at the primary feature.
 * It never turns a null into "nothing was remembered", nor one low p-value among several into a finding.
 */
import { type DemoReport, resultOf } from "./schema.ts";
import { between, fixed, list, plural, pValue, signed } from "./words.ts";

export interface Conclusions {
  may: string[];
  mayNot: string[];
}

const LEVEL = 0.05;
/** How far the reading control must lift the image split above the compared arm to be called a jump. */
const JUMP = 0.1;

interface Measured {
  name: string;
  faithful: number;
  auroc: number;
  band: [number, number];
  p: number;
  difference?: { value: number; null95: [number, number]; p: number };
}

/** The conclusions of a run; each sentence carries the numbers it rests on. */
export function conclude(data: DemoReport): Conclusions {
  const out: Conclusions = { may: [], mayNot: [] };
  const measured = (role: string): Measured[] =>
    data.design.arms.filter((arm) => arm.role === role).flatMap(({ name }) => {
      const result = resultOf(data, name);
      if (!result) return [];
      const { auroc, null95, p } = result.sound;
      return [{
        name,
        faithful: result.faithful.auroc,
        auroc,
        band: null95,
        p,
        difference: result.difference,
      }];
    });
  const numbers = ({ auroc, band, p }: Measured): string =>
    `AUROC ${fixed(auroc)}, null band ${between(band)}, p = ${pValue(p, data.design.draws)}`;

  const trusted = aboutPositive(out, measured("positive"), numbers);
  aboutControls(out, measured("control"), numbers);
  aboutReading(out, measured("reading"), data, numbers);
  aboutWatermarks(out, measured("watermark"), data, trusted, numbers);
  aboutGradients(out, data);
  aboutLimits(out, data);
  return out;
}

type Say = (arm: Measured) => string;

/** @returns whether every positive control was found: without that, a null means nothing */
function aboutPositive(out: Conclusions, arms: Measured[], numbers: Say): boolean {
  for (const arm of arms) {
    if (arm.p <= LEVEL) {
      out.may.push(
        `The instrument can find a shared trace of training: where training rewards knowing who was seen ("${arm.name}"), ` +
          `the sound probe tells seen from unseen people that it was never fitted on (${numbers(arm)}).`,
      );
    } else {
      out.mayNot.push(
        `Anything from the other arms' nulls: the positive control "${arm.name}" was not found in this run ` +
          `(${numbers(arm)}), so the instrument has not shown that it would see a trace if there were one.`,
      );
    }
  }
  if (arms.length === 0) {
    out.mayNot.push(
      "Anything from nulls: this run has no positive control, so the instrument has not shown that it works.",
    );
  }
  return arms.length > 0 && arms.every((arm) => arm.p <= LEVEL);
}

function aboutControls(out: Conclusions, arms: Measured[], numbers: Say): void {
  const [alarms, quiet] = [arms.filter((arm) => arm.p <= LEVEL), arms.filter((arm) => arm.p > LEVEL)];
  const lifted = quiet.filter((arm) => arm.faithful > 0.5);
  if (quiet.length) {
    const confound = lifted.length
      ? ` The image split gives ${list(lifted.map((arm) => `${fixed(arm.faithful)} (${arm.name})`))}: ` +
        "whatever lifts that above .5 is not memory, for these models were shown none of these people."
      : "";
    out.may.push(
      `Without a watermark in training the sound probe stays quiet: ${
        list(quiet.map((arm) => `"${arm.name}" (${numbers(arm)})`))
      }.${confound}`,
    );
  }
  for (const arm of alarms) {
    out.mayNot.push(
      `That "${arm.name}" remembers anyone, though its p-value is low (${
        numbers(arm)
      }): it was shown no watermark, so this ` +
        "is a false alarm of the kind that one test in twenty gives. An effect of that size in another arm deserves no more trust.",
    );
  }
}

function aboutReading(out: Conclusions, arms: Measured[], data: DemoReport, numbers: Say): void {
  const other = resultOf(data, data.design.comparedTo);
  if (!other) return;
  for (const arm of arms) {
    const lift = arm.faithful - other.faithful.auroc;
    const move = `from ${fixed(other.faithful.auroc)} (${data.design.comparedTo}) to ${fixed(arm.faithful)}`;
    if (arm.p <= LEVEL) {
      out.mayNot.push(
        `That the sound probe is immune to better reading: "${arm.name}" never saw the people probed, and yet its p-value is ` +
          `low (${
            numbers(arm)
          }). Until other seeds say that this was chance, low p-values of other arms may be reading too.`,
      );
    } else if (lift >= JUMP) {
      out.may.push(
        `A high AUROC of the image split is no evidence of memory: "${arm.name}" never saw the people probed, it only learnt ` +
          `that watermarks are worth reading, and the image split jumps ${move}. The sound probe does not follow (${
            numbers(arm)
          }).`,
      );
    } else {
      out.mayNot.push(
        `That reading alone imitates memory in this run: the reading control "${arm.name}" moves the image split ${move}, ` +
          `${signed(lift)}, less than the ${fixed(JUMP)} fixed beforehand.`,
      );
    }
  }
}

function aboutWatermarks(
  out: Conclusions,
  arms: Measured[],
  data: DemoReport,
  trusted: boolean,
  numbers: Say,
): void {
  const tests = plural(arms.length, "watermark arm");
  const to = data.design.comparedTo;
  for (const arm of arms) {
    const difference = arm.difference &&
      `${signed(arm.difference.value)} to ${to}, null band ${between(arm.difference.null95)}, ` +
        `p = ${pValue(arm.difference.p, data.design.draws)}`;
    if (arm.p > LEVEL) {
      out.mayNot.push(
        `That the watermarks of "${arm.name}" are not remembered: the probe did not find them (${
          numbers(arm)
        }), but a shared ` +
          `trace whose AUROC stays below about ${
            fixed(arm.band[1])
          }, the upper end of this arm's own null band, would most likely have been missed` +
          (trusted ? "." : ", and without a positive control that was found even that floor is not shown."),
      );
    } else if (arm.difference && arm.difference.p <= LEVEL) {
      out.may.push(
        `"${arm.name}" deserves to be repeated with other seeds: the sound probe separates seen from unseen (${
          numbers(arm)
        }; ` +
          `${difference}). It is one seed, and ${tests} of this kind had their chance, without correction.`,
      );
    } else {
      out.mayNot.push(
        `That "${arm.name}" remembers its watermarks: its own p-value is low (${numbers(arm)}), but ` +
          (difference
            ? `the difference to the right control is not (${difference}).`
            : `its difference to "${to}" was not measured.`),
      );
    }
  }
}

function aboutGradients(out: Conclusions, { gradients }: DemoReport): void {
  if (!gradients || gradients.rows.length === 0) return;
  const { rows } = gradients;
  const apart = rows.filter(({ difference: { ci95: [low, high] } }) => low > 0 || high < 0);
  const sizes = rows.length === 1 ? "at the one batch size" : `at all ${rows.length} batch sizes`;
  if (apart.length === 0) {
    const widest = Math.max(...rows.map(({ difference: { ci95: [low, high] } }) => (high - low) / 2));
    out.mayNot.push(
      `That private text moves the gradient in a way of its own: ${sizes} the interval of its cosine minus that of neutral ` +
        `text contains 0. Differences smaller than the intervals (half-width up to ${
          fixed(widest)
        }) are not excluded.`,
    );
  } else {
    const which = apart.map(({ batch, difference }) =>
      `batch ${batch}: ${signed(difference.mean)}, ${between(difference.ci95)}`
    );
    out.may.push(
      `Private and neutral text turned the gradient differently at ${apart.length} of ${
        plural(rows.length, "batch size")
      } ` +
        `(${list(which)}; uncorrected): worth a repetition, not a finding.`,
    );
  }
  if (rows.length > 1) {
    out.mayNot.push(
      "That small or large batches remember more: one model and one seed make no law of batch size.",
    );
  }
}

function aboutLimits(out: Conclusions, data: DemoReport): void {
  out.mayNot.push(
    "That no person is remembered by name: the sound probe fits one direction for all people and is blind to memory that differs from person to person.",
    "Anything about which layer remembers: one feature was named beforehand, and the others are not corrected for being many.",
    `Anything about large models: this one has ${
      data.design.parameters.toLocaleString("en-US")
    } parameters ` +
      "and one seed was run. It neither confirms nor refutes results on real ones.",
  );
  if (data.scores.length) {
    out.mayNot.push(
      "A verdict on a single picture: the probabilities given over HTTP come straight from the fit, they are not calibrated.",
    );
  }
  if (data.quick) {
    out.mayNot.push(
      "Even this much with confidence: the run was shortened, with fewer arms and steps than the settings were chosen for.",
    );
  }
}
