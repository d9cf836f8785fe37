/**
 * What the controls of the probe itself say: selectivity, description length, the blind baseline, calibration and power.
 * It shows what the cells hold and judges nothing.
 */
import { reliabilityChart } from "./study_charts.ts";
import type { Group } from "./study_json.ts";
import { armName, meanText, PANEL, primaryRow, type Section } from "./study_sections.ts";
import { markup, table } from "./markup.ts";
import { fixed, plural, range } from "./words.ts";

/** What each control of the probe itself says. */
export async function controls(group: Group): Promise<Section> {
  const rows = group.arms.flatMap((arm) => {
    const row = primaryRow(group, arm.name);
    if (!row) return [];
    const { mean, seeds } = row;
    const average = (of: (one: (typeof seeds)[number]) => number) =>
      seeds.reduce((sum, one) => sum + of(one), 0) / seeds.length;
    return [[
      armName(arm),
      fixed(average(({ selectivity }) => selectivity.task)),
      fixed(average(({ selectivity }) => selectivity.control)),
      meanText(mean.selectivity, 2, true),
      fixed(average(({ description }) => description.bits), 0),
      fixed(average(({ description }) => description.control), 0),
      fixed(average(({ description }) => description.uniform), 0),
      meanText(mean.compression),
    ]];
  });
  const blind = group.blind.map(({ seed, auroc, null95, p }) => [
    String(seed),
    fixed(auroc),
    range(null95),
    fixed(p, 3),
  ]);
  const calibration = group.calibration.map(({ arm, methods, ece, brier, abstained }) => [
    arm,
    methods.join(", "),
    meanText(ece, 3),
    meanText(brier, 3),
    meanText(abstained),
  ]);
  const shown = group.power.filter(({ arm }) =>
    arm === (group.arms.find(({ role }) => role === "watermark") ?? group.arms[0]).name
  );
  const scenes = [...new Set(shown.map((row) => row.scenes))].sort((a, b) => a - b);
  const power = [...new Set(shown.map(({ people }) => people))].sort((a, b) => a - b).map((people) => [
    String(people),
    ...scenes.map((count) => {
      const row = shown.find((entry) => entry.people === people && entry.scenes === count);
      return row ? fixed(row.detectable.value) : "";
    }),
  ]);
  return markup`<h3>What the controls of the probe say</h3>
${
    table(
      ["arm", "task", "control task", "selectivity", "bits", "control", "uniform", "compression"],
      rows,
      "Selectivity (accuracy less that on people labelled by lot, both split by image) and description length of the labels, people kept together, at the primary feature",
    )
  }
<p class="quiet">A selectivity near 0 says that the image-split probe learns labels by lot as well as the true ones: it knows people by
heart. A compression of at most 1 says that the labels are no shorter to write with the activations than without.</p>
${
    table(
      ["seed", "AUROC", "null band", "p"],
      blind,
      "Blind baseline: the pictures’ own pixels, averaged down, in place of activations",
    )
  }
<h3>Calibration</h3>
<div class="panels">
${await Promise.all(
    group.calibration.map(async (one) =>
      markup`<figure><h3>${one.arm}</h3>${await reliabilityChart(one, PANEL)}<figcaption>ECE ${
        fixed(one.ece.value, 3)
      }</figcaption></figure>\n`
    ),
  )}</div>
${
    table(
      ["arm", "method", "ECE", "Brier", "abstains"],
      calibration,
      "On people that neither fit nor calibration has seen; abstains: share of scores beyond those that calibration has seen",
    )
  }
<h3>Power</h3>
${
    table(
      ["people a set", ...scenes.map((count) => plural(count, "scene"))],
      power,
      `The smallest expected AUROC that 80 % of studies of that size find at the level .05, from the spread in ${
        shown[0]?.arm ?? ""
      }`,
    )
  }
`;
}
