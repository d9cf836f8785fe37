/**
 * From a study's folder to its report: reads every cell that is done, draws scatters and heat maps, writes report.json,
 * report.html and tables/*.csv. A cell whose files do not fit is refused by name.
 */
import { InputError } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { readJson } from "../core/formats/folder.ts";
import { VERSION } from "../core/formats/manifest.ts";
import { readActivations } from "../core/probe/activations.ts";
import { featureRows, selectRows } from "../core/probe/selection.ts";
import { loadProbe } from "../core/probe/stored.ts";
import { scatterOf } from "../core/report/embed.ts";
import type { ArmScatter, CellResult, HeatMap, StudyTimes } from "../core/report/study_input.ts";
import { type StudyOutput, studyReport } from "../core/report/study_report.ts";
import { planArm } from "../core/study/arms.ts";
import { canonical, type Cell } from "../core/study/cells.ts";
import type { StudyConfig } from "../core/study/config.ts";
import { parseStudy, PRESETS } from "../core/study/presets.ts";
import {
  gradientResultSchema,
  probeResultSchema,
  saysResultSchema,
  tuneSchema,
} from "../core/study/results.ts";
import { evidence, heatFeature, readShown, SHOWN } from "../core/study/shown.ts";
import { cellFolder, isDone, placeOf, readResult, TIMES } from "./study_cell.ts";
import { readStudy } from "./study_run.ts";

/** Makes the report of what is done in a study's folder and writes it there; `report.json` comes last. */
export async function writeReport(folder: Folder): Promise<StudyOutput> {
  const { config, identities, cells } = await readStudy(folder);
  const done: Cell[] = [], missing: string[] = [];
  for (const cell of cells) {
    if (await isDone(folder, cell)) done.push(cell);
    else missing.push(`${cell.kind}: ${placeOf(cell)}`);
  }
  const results: CellResult[] = [];
  for (const cell of done) results.push(...await readCell(folder, cell));
  const pictures = await picturesOf(folder, config, done);
  const output = await studyReport({
    ...{ config, identities, results, missing, ...pictures },
    commands: [commandOf(config), "deno task report DIR"],
    versions: { afterimage: VERSION, deno: Deno.version.deno },
    times: await timesOf(folder, done),
  });
  await folder.write("config.json", JSON.stringify(config, null, 1) + "\n");
  for (const [name, text] of output.tables) await folder.write(`tables/${name}`, text);
  await folder.write("report.html", output.html);
  await folder.write("report.json", JSON.stringify(output.json, null, 1) + "\n");
  return output;
}

async function readCell(folder: Folder, cell: Cell): Promise<CellResult[]> {
  const { key, id, kind } = cell, at = cellFolder(folder, cell);
  switch (kind) {
    case "tune":
      return [{ kind, key, id, result: await readResult(at, "tune.json", tuneSchema) }];
    case "probe":
      return [{ kind, key, id, result: await readResult(at, "probe.json", probeResultSchema) }];
    case "says":
      return [{ kind, key, id, result: await readResult(at, "says.json", saysResultSchema) }];
    case "gradients":
      return [{ kind, key, id, result: await readResult(at, "gradients.json", gradientResultSchema) }];
    case "activations":
      return [];
  }
}

/** As it would be typed: a preset where the study is one, else the configuration that is written beside the report. */
function commandOf(config: StudyConfig): string {
  const isPreset = config.name in PRESETS &&
    canonical(parseStudy({ preset: config.name }, config.name)) === canonical(config);
  return isPreset
    ? `deno task study --preset ${config.name} --out DIR`
    : "deno task study --config config.json --out DIR";
}

async function timesOf(folder: Folder, done: readonly Cell[]): Promise<StudyTimes> {
  const seconds: Record<string, number> = {}, adapters = new Set<string>(), seen = new Set<string>();
  for (const cell of done) {
    const at = cellFolder(folder, cell);
    if (seen.has(cell.id) || !await at.exists(TIMES)) continue;
    seen.add(cell.id);
    const times = await readJson(at, TIMES) as { seconds: number; adapter?: string };
    seconds[cell.kind] = (seconds[cell.kind] ?? 0) + times.seconds;
    if (times.adapter !== undefined) adapters.add(times.adapter);
  }
  return { written: new Date().toISOString(), seconds, adapters: [...adapters].sort() };
}

/** Arms whose activations are drawn: the compared one, the last with irrelevant watermarks of U1, and one of each other role. */
function drawnArms({ arms, comparedTo }: StudyConfig): string[] {
  const plans = arms.map((arm) => planArm(arm));
  const watermark = plans.findLast(({ role, marks }) => role === "watermark" && marks === "U1");
  const others = ["reading", "positive"].map((role) => plans.find((plan) => plan.role === role));
  return [comparedTo, ...[watermark, ...others].flatMap((plan) => plan ? [plan.name] : [])];
}

/** Scatters and heat maps of the first seed. */
async function picturesOf(
  folder: Folder,
  config: StudyConfig,
  done: readonly Cell[],
): Promise<{ scatters: ArmScatter[]; heatMaps: HeatMap[] }> {
  const scatters: ArmScatter[] = [], heatMaps: HeatMap[] = [];
  const { primary, prompts } = config.probe, arms = drawnArms(config);
  const prompt = primary?.slice(0, primary.indexOf("/")) ?? prompts[0].id;
  const chosen = done.filter(({ kind, key }) =>
    kind === "probe" && key.prompt === prompt && key.seed === config.seeds[0] && arms.includes(key.arm!)
  ).sort((a, b) => arms.indexOf(a.key.arm!) - arms.indexOf(b.key.arm!));
  for (const cell of chosen) {
    const parent = done.find(({ id }) => id === cell.parents[0]);
    if (!parent) {
      throw new InputError(
        `Cannot report the cell "${cell.id}": the activations it was made from are not there`,
      );
    }
    const { model, data, batch, seed, arm } = cell.key, place = { model, data, batch, seed, arm: arm! };
    const activations = cellFolder(folder, parent), set = await readActivations(activations);
    const stored = await loadProbe(cellFolder(folder, cell).folder("stored"));
    const { rows } = selectRows(set.samples, "U1", "U2"), feature = stored.primary;
    const matrix = set.features.get(feature)!;
    scatters.push({
      ...{ ...place, feature },
      sets: Array.from(rows, (row) => set.samples[row].set),
      people: Array.from(rows, (row) => set.samples[row].person!),
      ...scatterOf(featureRows(matrix, rows), matrix.dim),
    });
    if (!await activations.exists(SHOWN)) continue;
    const { pictures } = await readShown(activations), seenBy = heatFeature(feature, set.features.keys());
    for (const { tokens, ...picture } of pictures) {
      if (!tokens || !picture.grid || seenBy === undefined) {
        heatMaps.push({ ...place, ...picture });
        continue;
      }
      const [height, width] = picture.grid, probe = stored.tensors[seenBy];
      const values = [...evidence(tokens, height * width, probe)];
      const score = values.reduce((sum, value) => sum + value, probe.intercept);
      heatMaps.push({ ...place, ...picture, feature: seenBy, values, score });
    }
  }
  return { scatters, heatMaps };
}
