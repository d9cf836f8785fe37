/**
 * A study's whole report made again: an object of the form of report.json, every number of it from the files that cells keep. A
 * function in it stands for what is held to a property instead.
 */
import type { Folder } from "../../core/formats/folder.ts";
import { planArm } from "../../core/study/arms.ts";
import type { Cell } from "../../core/study/cells.ts";
import { ASKED, PIXELS } from "../../core/study/evidence.ts";
import { calibrationOf, type CalibrationOfSeed } from "./calibration.ts";
import { firstVerdict, secondVerdict, thirdVerdict } from "./claims.ts";
import { type Power, powerOf } from "./controls.ts";
import { activationsOf, addJoinedDifferences, type FeatureRow, featuresOf } from "./features.ts";
import { gradientsOf } from "./gradients.ts";
import { band, distinct, pValue, shareOverSeeds, sum } from "./numbers.ts";
import { picturesOf } from "./pictures.ts";
import { soundRates } from "./probe.ts";
import {
  labelled,
  readActivationsOf,
  readJsonOf,
  readStudyFiles,
  readTensorsOf,
  rowsOf,
  type StudyFiles,
} from "./read.ts";
import { type AnswerRow, saysOf, type SaysOfSeed, saysRow } from "./says.ts";
import { allowed } from "./sentences.ts";
import { armFacts } from "./tune.ts";

/** The answers' table stands beside the report, from the same cells. */
export interface Remade {
  // deno-lint-ignore no-explicit-any
  report: any;
  answers: (AnswerRow & { model: string; data: string; batch: number; arm: string; seed: number })[];
}

export async function remakeReport(folder: Folder): Promise<Remade> {
  const study = await readStudyFiles(folder), { config } = study;
  const groups: unknown[] = [], answers: Remade["answers"] = [];
  for (const model of config.models) {
    for (const data of config.data) {
      for (const batch of config.batchSizes) {
        const own = study.cells.filter(({ key }) =>
          key.model === model.name && key.data === data.name && key.batch === batch
        );
        const gradients = study.cells.filter(({ kind, key }) =>
          kind === "gradients" && key.model === model.name && key.data === data.name
        );
        if (own.some(({ kind }) => kind === "probe")) groups.push(await groupOf(study, own, gradients));
      }
    }
  }
  for (const cell of study.cells.filter(({ kind }) => kind === "says")) {
    const { model, data, batch, arm, seed } = cell.key, { rows } = await saysOf(study, cell);
    answers.push(...rows.map((row) => ({ model, data, batch, arm: arm!, seed, ...row })));
  }
  const report = { format: 1, groups, config, times: { seconds: await secondsOf(study) } };
  return { report, answers };
}

/** By kind of cell, each cell once. */
async function secondsOf(study: StudyFiles): Promise<Record<string, number>> {
  const out: Record<string, number> = {}, once = new Map(study.cells.map((cell) => [cell.id, cell]));
  for (const cell of once.values()) {
    out[cell.kind] = (out[cell.kind] ?? 0) +
      (await readJsonOf<{ seconds: number }>(study, cell, "times.json")).seconds;
  }
  return out;
}

const bySeed = (cells: Cell[]) => [...cells].sort((a, b) => a.key.seed - b.key.seed);

async function groupOf(study: StudyFiles, own: Cell[], gradientCells: Cell[]) {
  const { config, identities } = study,
    ofKind = (kind: string) => bySeed(own.filter((cell) => cell.kind === kind));
  const probes = ofKind("probe"), [{ key: { model, data, batch } }] = probes;
  const seeds = distinct(probes.map(({ key }) => key.seed)).sort((a, b) => a - b);
  const names = config.arms.filter((arm) => probes.some(({ key }) => key.arm === arm));
  const features = await featuresOf(study, probes), primary = primaryOf(study, features);
  addJoinedDifferences(features, config.comparedTo);
  const atPrimary = probes.filter(({ key }) => key.prompt === primary.prompt);
  const rows = features.filter((row) => row.prompt === primary.prompt && row.feature === primary.feature);
  const parent = study.cells.find(({ id }) => id === probes[0].parents[0])!;
  const { samples } = await readActivationsOf(study, parent);
  const people = (set: string) =>
    distinct(samples.filter((one) => one.set === set).map(({ person }) => person)).length;

  const arms: unknown[] = [],
    calibration: unknown[] = [],
    power: unknown[] = [],
    says: ReturnType<typeof saysRow>[] = [];
  for (const arm of names) {
    const tunes = ofKind("tune").filter(({ key }) => key.arm === arm);
    const { images } = identities.data[`${data}/${own[0].key.seed}`];
    arms.push({ ...await armFacts(study, tunes, batch, images), role: planArm(arm).role });
    const cells = atPrimary.filter(({ key }) => key.arm === arm);
    const row = rows.find((row) => row.arm === arm)!;
    calibration.push(await calibrationRow(study, cells, arm, primary.feature));
    power.push(...await powerRows(study, cells, arm, row, primary.feature));
    const asked: SaysOfSeed[] = [], askedCells = ofKind("says").filter(({ key }) => key.arm === arm);
    for (const cell of askedCells) asked.push(await saysOf(study, cell));
    if (asked.length === 0) continue;
    const { weighings: [{ alternatives }] } = await readJsonOf<{ weighings: { alternatives: number[] }[] }>(
      study,
      askedCells[0],
      ASKED,
    );
    says.push(saysRow(arm, alternatives.length + 1, askedCells.map(({ key }) => key.seed), asked));
  }
  const gradients = gradientCells.length ? await gradientsOf(study, bySeed(gradientCells)) : null;
  const verdicts = [firstVerdict(gradients), secondVerdict(gradients), thirdVerdict(rows, says)];
  const said = allowed(rows, says, gradients, verdicts[0].also);
  return {
    ...{ model, data, batch, seeds, primary },
    people: { seen: people("U1"), unseen: people("U2") },
    scenes: distinct(samples.map(({ scene }) => scene)).length,
    arms,
    features: features.map(({ draws0: _, ...row }) => row),
    blind: await blindRows(study, atPrimary, seeds),
    ...{ calibration, power, says, gradients },
    claims: verdicts.map(({ answer }, i) => ({ claim: i + 1, answer, because: said.claims[i] })),
    findings: said.findings,
    ...await picturesOf(study, atPrimary, primary.feature),
  };
}

/** As configured, else the last decoder layer's second-to-last token, last token or first reduction, under the first prompt. */
function primaryOf({ config: { probe } }: StudyFiles, features: FeatureRow[]) {
  const [prompt, ...rest] = probe.primary?.split("/") ?? [probe.prompts[0].id];
  if (rest.length) return { prompt, feature: rest.join("/") };
  const decoder = features.filter((row) => row.prompt === prompt && row.site.startsWith("layers."));
  const { site } = decoder[decoder.length - 1], there = decoder.filter((row) => row.site === site);
  const wanted = ["index:-2", "last"].map((reduction) => there.find((row) => row.reduction === reduction));
  return { prompt, feature: (wanted.find(Boolean) ?? there[0]).feature };
}

/** Pixels instead of activations, the first arm's of every seed: they are the same in all. */
async function blindRows(study: StudyFiles, probes: Cell[], seeds: number[]) {
  const { probe } = study.config, out: unknown[] = [];
  for (const seed of seeds) {
    const cell = study.config.arms.flatMap((arm) =>
      probes.find(({ key }) =>
        key.seed === seed && key.arm === arm
      ) ?? []
    )[0];
    const { samples } = await readActivationsOf(study, study.cells.find(({ id }) => id === cell.parents[0])!);
    const pixels = rowsOf((await readTensorsOf(study, cell, PIXELS)).get("pixels")!);
    const [observed, ...nulls] = soundRates(labelled(samples, pixels), probe, seed, probe.centerScenes).all;
    out.push({ seed, auroc: observed, null95: band(nulls), p: pValue(observed, nulls) });
  }
  return out;
}

async function calibrationRow(study: StudyFiles, cells: Cell[], arm: string, feature: string) {
  const all: CalibrationOfSeed[] = [];
  for (const cell of cells) {
    all.push(
      calibrationOf((await activationsOf(study, cell)).get(feature)!, study.config.probe, cell.key.seed),
    );
  }
  const bins = distinct(all.flatMap(({ bins }) => bins.map(({ low }) => low))).sort((a, b) => a - b).map(
    (low) => {
      const same = all.flatMap(({ bins }) => bins.filter((bin) => bin.low === low)),
        n = sum(same.map((bin) => bin.n));
      return {
        ...{ low, high: same[0].high, n },
        predicted: sum(same.map((bin) => bin.n * bin.predicted)) / n,
        observed: sum(same.map((bin) => bin.n * bin.observed)) / n,
      };
    },
  );
  return {
    ...{ arm, feature, methods: [all[0].method], bins },
    ece: shareOverSeeds(all.map(({ ece }) => ece)),
    brier: shareOverSeeds(all.map(({ brier }) => brier)),
    abstained: shareOverSeeds(all.map(({ abstained }) => abstained)),
  };
}

async function powerRows(study: StudyFiles, cells: Cell[], arm: string, row: FeatureRow, feature: string) {
  const tables: Power[][] = [];
  for (const [s, cell] of cells.entries()) {
    const rows = (await activationsOf(study, cell)).get(feature)!;
    tables.push(powerOf(rows, study.config.probe, cell.key.seed, row.draws0[s].slice(1)));
  }
  return tables[0].map(({ people, scenes }, i) => ({
    ...{ arm, people, scenes },
    detectable: shareOverSeeds(tables.map((table) => table[i].detectable)),
  }));
}
