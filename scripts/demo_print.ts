/**
 * What the demo prints: a table of arms at the primary feature, the gradient row, the scores that came over HTTP, and
 * what may be concluded.
 */
import { conclude } from "../core/report/conclude.ts";
import { type DemoReport, type Interval, resultOf } from "../core/report/schema.ts";

const number = (x: number) => x.toFixed(3);
const band = ([low, high]: Interval) => `[${number(low)}, ${number(high)}]`;

export function printDemo(data: DemoReport): void {
  const { people, scenes, seed, arms } = data.design;
  const sets = people.map(({ set, count }) => `${count} people in ${set}`).join(", ");
  console.log(
    `\n${data.title}: ${sets}; ${scenes} held-out scenes; seed ${seed}; ${data.provenance.adapter}`,
  );
  console.log(`Primary feature, fixed beforehand: ${data.primary}\n`);
  console.log("arm     AUROC split by image   AUROC split by person   its null band (95 %)   p");
  for (const { name } of arms) {
    const result = resultOf(data, name);
    if (!result) continue;
    const { faithful, sound } = result;
    console.log([
      name.padEnd(8),
      number(faithful.auroc).padEnd(23),
      number(sound.auroc).padEnd(24),
      band(sound.null95).padEnd(23),
      sound.p.toFixed(3),
    ].join(""));
  }
  for (const { batch, batches, cosines, difference } of data.gradients?.rows ?? []) {
    const shown = Object.entries(cosines).map(([key, { mean }]) => `${key} ${number(mean)}`).join(", ");
    console.log(
      `${
        batch === data.gradients!.rows[0].batch
          ? "\nGradient cosine to the clean batch (mean; private minus neutral with its 95 % interval)\n"
          : ""
      }` +
        `batch ${String(batch).padStart(2)} (${batches} batches): ${shown}; difference ${
          number(difference.mean)
        } ${band(difference.ci95)}`,
    );
  }
  if (data.scores.length) console.log("\nScored over HTTP, one held-out picture of each set");
  for (const { caption, probe, score, probability } of data.scores) {
    console.log(
      `${caption}: probe ${probe}, log-odds ${score.toFixed(2)}, probability ${
        number(probability)
      } (not calibrated)`,
    );
  }
  const { may, mayNot } = conclude(data);
  console.log("\nWhat may be concluded");
  for (const line of may) console.log(`- ${line}`);
  console.log("What may not be concluded");
  for (const line of mayNot) console.log(`- ${line}`);
  const stages = data.provenance.stages.map(({ name, seconds }) => `${name} ${seconds.toFixed(0)}`).join(
    ", ",
  );
  console.log(`\n${data.provenance.seconds.toFixed(0)} seconds (${stages})`);
}
