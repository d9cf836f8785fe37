/**
 * What `deno task check` tells of its pictures: the tally that decides, a summary in words, JUnit for a build server.
 * It calls nothing clean that was not looked at: pictures without an answer are counted apart.
 */
import type { BatchLine, ProblemDocument, Score } from "../functions/schemas.ts";

/** One picture, scored or refused. */
export interface Checked {
  path: string;
  score?: Score;
  problem?: Pick<ProblemDocument, "type" | "detail">;
}

export interface Tally {
  flagged: number;
  clear: number;
  /** The probe gave no answer. */
  abstained: number;
  /** They could not be scored. */
  failed: number;
}

export const checkedOf = (path: string, { score, problem }: BatchLine): Checked => ({
  path,
  ...(score && { score }),
  ...(problem && { problem }),
});

type Outcome = keyof Tally;
const OUTCOMES = { "flagged": "flagged", "not-flagged": "clear", "abstain": "abstained" } as const;
export const outcomeOf = ({ score }: Checked): Outcome => score ? OUTCOMES[score.decision.answer] : "failed";

export function tally(checked: readonly Checked[]): Tally {
  const counts: Tally = { flagged: 0, clear: 0, abstained: 0, failed: 0 };
  for (const picture of checked) counts[outcomeOf(picture)]++;
  return counts;
}

/** 0 clean, 1 more flagged than allowed, 2 not everything could be checked, or nothing was answered. */
export function exitCode({ flagged, clear, abstained, failed }: Tally, maxFlagged: number): 0 | 1 | 2 {
  if (failed > 0 || (abstained > 0 && flagged + clear === 0)) return 2;
  return flagged > maxFlagged ? 1 : 0;
}

const pictures = (n: number): string => n === 1 ? "1 picture" : `${n} pictures`;
const number = (value: number | null): string => value === null ? "none" : value.toFixed(3);

/** Why a picture came out as it did, in a line. */
export function reasonOf({ score, problem }: Checked): string {
  if (!score) return problem ? `${problem.detail} (${problem.type})` : "no answer came";
  const { primary: { feature, score: value, threshold }, decision } = score;
  if (decision.answer === "abstain") return decision.detail;
  return `score ${number(value)}, threshold ${number(threshold)}, at ${feature}`;
}

/** The last words, with every picture that is flagged or failed. */
export function summary(checked: readonly Checked[], maxFlagged: number): string {
  const { flagged, clear, abstained, failed } = tally(checked);
  const first = checked.find(({ score }) => score)?.score;
  const shown = checked.filter((picture) => ["flagged", "failed"].includes(outcomeOf(picture)));
  const lines = shown.map((picture) => `${outcomeOf(picture)}  ${picture.path}: ${reasonOf(picture)}`);
  const answered = flagged + clear;
  lines.push(
    `${pictures(checked.length)}: ${flagged} flagged (at most ${maxFlagged} allowed), ${clear} not, ` +
      `${abstained} without an answer, ${failed} failed`,
  );
  if (first) {
    const expected = first.fpr * answered, digits = expected < 0.1 ? 2 : expected < 10 ? 1 : 0;
    lines.push(
      `probe ${first.probe}, version ${first.bundle.slice(0, 12)}, ${first.fpr * 100} % false alarms`,
    );
    if (answered > 0) {
      lines.push(
        `by chance alone about ${expected.toFixed(digits)} of ${
          pictures(answered)
        } of unseen people are flagged`,
      );
    }
  }
  const abstention = checked.find(({ score }) => score?.decision.answer === "abstain")?.score;
  if (abstention) lines.push(`without an answer, as of the first: ${abstention.decision.detail}`);
  return lines.join("\n");
}

const XML: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
/** Text for XML 1.0, which has no place for most control characters. */
const xml = (text: string): string =>
  // deno-lint-ignore no-control-regex
  text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd").replace(/[&<>"]/g, (char) => XML[char]);

/** One test case a picture: flagged is a failure, refused an error, no answer skipped. */
export function junit(probe: string, checked: readonly Checked[], seconds: number): string {
  const { flagged, abstained, failed } = tally(checked);
  const KINDS = { flagged: "failure", failed: "error", abstained: "skipped" } as const;
  const cases = checked.map((picture) => {
    const outcome = outcomeOf(picture),
      open = `<testcase classname="${xml(probe)}" name="${xml(picture.path)}"`;
    if (outcome === "clear") return `  ${open}/>`;
    return `  ${open}><${KINDS[outcome]} message="${xml(reasonOf(picture))}"/></testcase>`;
  });
  const counts = `tests="${checked.length}" failures="${flagged}" errors="${failed}" skipped="${abstained}"`;
  return [
    `<?xml version="1.0" encoding="UTF-8"?>`,
    `<testsuite name="afterimage check ${xml(probe)}" ${counts} time="${seconds.toFixed(3)}">`,
    ...cases,
    `</testsuite>`,
    "",
  ].join("\n");
}
