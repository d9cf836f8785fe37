/**
 * The three claims' verdicts beside those of a second reading of docs/study.md, on many drawn results: both must give the same
 * answer, and the results must give every answer.
 */
import assert from "node:assert/strict";
import { Random } from "../core/random.ts";
import { type ArmTest, firstClaim, secondClaim, thirdClaim } from "../core/report/study_claims.ts";
import type { GradientNumbers, SaysNumbers } from "../core/report/study_outputs.ts";
import { planArm } from "../core/study/arms.ts";
import { firstVerdict, secondVerdict, thirdVerdict } from "./recompute/claims.ts";
import type { FeatureRow } from "./recompute/features.ts";
import type { GradientRows } from "./recompute/gradients.ts";
import { overSeeds, range } from "./recompute/numbers.ts";
import type { SaysRow } from "./recompute/says.ts";

/** Both readings, counted by answer. */
function sameAnswers(worlds: number, answers: (random: Random) => [string, string]): Record<string, number> {
  const found: Record<string, number> = { yes: 0, no: 0, undecided: 0 };
  for (let world = 0; world < worlds; world++) {
    const [ours, theirs] = answers(new Random(world, "claims"));
    assert.equal(ours, theirs, `world ${world}`);
    found[ours]++;
  }
  return found;
}

const seedCount = (random: Random): number => random.float() < 0.1 ? 4 : 5;

function drawnGradients(random: Random): GradientRows {
  const seeds = range(seedCount(random)), noise = random.pick([0.005, 0.03, 0.1]);
  const near = (value: number) => value + noise * random.normal();
  const sizes = random.pick([[1], [1, 16], [1, 4, 16]]);
  const lift = random.pick([0, 0.04, 0.3]), last = random.pick([0, 1]) * lift;
  const alignment = sizes.flatMap((batch) =>
    ["private", "neutral"].map((version) => {
      const added = version === "neutral" ? 0 : batch === 1 ? lift : last;
      const values = seeds.map(() => near(0.1 + added));
      return { batch, version, seeds: values, mean: overSeeds(values) };
    })
  );
  const effect = random.pick([0, 0, 0.04, -0.1]), parameters = random.pick([["all", "B"], ["B"]]);
  const difference = parameters.flatMap((name) =>
    sizes.map((batch) => {
      const estimates = seeds.map(() => {
        const value = near(effect);
        return { value, ci95: [value - 1.5 * noise, value + 1.5 * noise] as [number, number] };
      });
      return { batch, parameters: name, estimates, mean: overSeeds(estimates.map(({ value }) => value)) };
    })
  );
  const row = {
    batch: 1,
    version: "private" as const,
    cosine: overSeeds([0, 0]),
    norm_ratio: overSeeds([0, 0]),
  };
  const rows = parameters.map((name) => ({ ...row, parameters: name }));
  return { seeds, alignment, difference, rows, noise_scale: [], trajectory: [], skipped: [] };
}

Deno.test("the first two claims are answered as another reading of the rules answers them", () => {
  const first = sameAnswers(2000, (random) => {
    const gradients = drawnGradients(random);
    return [firstClaim(gradients as GradientNumbers).answer, firstVerdict(gradients).answer];
  });
  const second = sameAnswers(2000, (random) => {
    const gradients = drawnGradients(random);
    return [secondClaim(gradients as GradientNumbers).answer, secondVerdict(gradients).answer];
  });
  for (const [answer, count] of [...Object.entries(first), ...Object.entries(second)]) {
    assert.ok(count > 100, `${answer}: ${count} of 2000`);
  }
});

Deno.test("the third claim is answered as another reading of the rules answers it", () => {
  const found = sameAnswers(4000, (random) => {
    const seeds = range(seedCount(random)), isSeen = random.float() < 0.5, isSaid = random.float() < 0.4;
    const names = ["r0", "corr0", "known", "swap", "r50", "r100"].filter(() => random.float() < 0.97);
    const says: SaysRow[] = [];
    const rows = names.map((arm) => {
      const isLow = arm === "known" || (isSeen && /^r\d+0$/.test(arm)), chance = isLow ? 0.95 : 0.05;
      const p = () => random.float() < chance ? 0.01 : 0.4;
      const lift = isLow ? 0.3 : random.pick([-0.03, 0.06]), noise = random.pick([0.01, 0.05]);
      const lifts = seeds.map(() => lift + noise * random.normal());
      if (random.float() < 0.85) {
        const low = () => seeds.map(() => random.float() < (isSaid && isLow ? 0.9 : 0.05) ? 0.02 : 0.5);
        const share = random.pick([0, 0, 0.04, 0.06]);
        const named = { seen: overSeeds(seeds.map(() => share)), unseen: overSeeds(seeds.map(() => 0)) };
        says.push({ arm, named, exposure: [{ p: low() }, { p: low() }] } as unknown as SaysRow);
      }
      return {
        arm,
        seeds: lifts.map((value) => ({
          p: p(),
          p_all: p(),
          ...(arm !== "r0" && { difference: { value, p_all: p() } }),
        })),
        mean: { difference: arm === "r0" ? undefined : overSeeds(lifts) },
      } as unknown as FeatureRow;
    });
    const tests = rows.map((numbers): ArmTest => {
      const { role, marks } = planArm(numbers.arm), own = says.find(({ arm }) => arm === numbers.arm);
      return {
        ...{ name: numbers.arm, role, isCandidate: role === "watermark" && marks === "U1" },
        numbers: numbers as unknown as ArmTest["numbers"],
        says: own as SaysNumbers | undefined,
      };
    });
    return [thirdClaim(tests).answer, thirdVerdict(rows, says).answer];
  });
  for (const [answer, count] of Object.entries(found)) assert.ok(count > 100, `${answer}: ${count} of 4000`);
});
