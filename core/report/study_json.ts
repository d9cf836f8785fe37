/**
 * `report.json` of a study: every number that its page and tables show, from the results of its cells. All that changes
 * from run to run stands in `times`; a study without a single probe cell is refused.
 */
import { InputError } from "../errors.ts";
import { type ArmRole, planArm } from "../study/arms.ts";
import { primaryOf, tuningOf } from "../study/cells.ts";
import type { StudyConfig } from "../study/config.ts";
import type { Interval, ProbeResult, TuneResult } from "../study/results.ts";
import { type ArmTest, type Claim, firstClaim, secondClaim, thirdClaim } from "./study_claims.ts";
import { type Findings, studyFindings } from "./study_findings.ts";
import type { ArmScatter, CellResult, HeatMap, StudyInput, StudyTimes } from "./study_input.ts";
import { type FeatureNumbers, featureNumbers, type Mean, meanShare, type Probed } from "./study_numbers.ts";
import {
  type GradientNumbers,
  gradientNumbers,
  type SaysNumbers,
  saysNumbers,
  type VqaNumbers,
  vqaNumbers,
} from "./study_outputs.ts";

export interface ArmFacts {
  name: string;
  role: ArmRole;
  words: string;
  images: number;
  steps: number;
  lr: number;
  /** Pictures of it that carry a person, of the first seed. */
  marked: number | null;
  parameters: number | null;
  trained: number | null;
  /** Hash of what training left, one a seed. */
  runs: { seed: number; run: string | null }[];
  /** Of the first seed. */
  losses: TuneResult["losses"];
  vqa: VqaNumbers | null;
}

export interface Calibration {
  arm: string;
  feature: string;
  methods: string[];
  ece: Mean;
  brier: Mean;
  abstained: Mean;
  /** Of all seeds together. */
  bins: ProbeResult["calibration"]["bins"];
}

/** One model, data set and batch size. */
export interface Group {
  model: string;
  data: string;
  batch: number;
  seeds: number[];
  primary: { prompt: string; feature: string };
  people: { seen: number; unseen: number };
  scenes: number;
  arms: ArmFacts[];
  features: FeatureNumbers[];
  /** What the pixels alone give away, one a seed. */
  blind: { seed: number; auroc: number; null95: Interval; p: number }[];
  calibration: Calibration[];
  power: { arm: string; people: number; scenes: number; detectable: Mean }[];
  says: SaysNumbers[];
  gradients: GradientNumbers | null;
  claims: Claim[];
  findings: Findings;
  scatters: ArmScatter[];
  heatMaps: HeatMap[];
}

export interface StudyReport {
  format: 1;
  name: string;
  title: string;
  question: string;
  comparedTo: string;
  groups: Group[];
  missing: string[];
  config: StudyConfig;
  provenance: {
    commands: string[];
    versions: Record<string, string>;
    /** Hashes of models and data sets. */
    hashes: Record<string, string>;
    cells: { cell: string; place: string }[];
  };
  times: StudyTimes;
}

/** @throws InputError without any probe result, or where permutations differ */
export function studyJson(input: StudyInput): StudyReport {
  const { config, identities, results } = input;
  if (!results.some(({ kind }) => kind === "probe")) {
    throw new InputError(`Cannot report the study "${config.name}": none of its probe cells is done`);
  }
  const groups = config.models.flatMap((model) =>
    config.data.flatMap((data) =>
      config.batchSizes.flatMap((batch) => groupOf(input, model.name, data.name, batch) ?? [])
    )
  );
  return {
    format: 1,
    name: config.name,
    title: config.title,
    question: config.question,
    comparedTo: config.comparedTo,
    groups,
    missing: input.missing,
    config,
    provenance: {
      commands: input.commands,
      versions: input.versions,
      hashes: {
        ...Object.fromEntries(
          Object.entries(identities.models).map(([name, hash]) => [`model ${name}`, hash]),
        ),
        ...Object.fromEntries(
          Object.entries(identities.data).map(([name, { hash }]) => [`data ${name}`, hash]),
        ),
        ...(identities.paraphrases !== undefined && { paraphrases: identities.paraphrases }),
      },
      cells: results.map(({ kind, id, key }) => ({
        cell: `${kind}-${id}`,
        place: Object.values(key).join(" "),
      })),
    },
    times: input.times,
  };
}

function groupOf(input: StudyInput, model: string, data: string, batch: number): Group | undefined {
  const { config } = input;
  const here = input.results.filter(({ key }) => key.model === model && key.data === data);
  const own = here.filter(({ key }) => key.batch === batch);
  const probes = ofKind(own, "probe").map(({ key, result }): Probed => ({
    arm: key.arm!,
    seed: key.seed,
    prompt: key.prompt!,
    result,
  }));
  if (probes.length === 0) return undefined;
  // The order of the configuration, whatever order the cells were finished in.
  const at = ({ arm, seed, prompt }: Probed) => [
    config.arms.indexOf(arm),
    config.probe.prompts.findIndex(({ id }) => id === prompt),
    seed,
  ];
  probes.sort((a, b) => {
    const [x, y] = [at(a), at(b)];
    return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
  });
  const primary = primaryFeature(config, probes), features = featureNumbers(probes, config.comparedTo);
  const seeds = [...new Set(probes.map(({ seed }) => seed))].sort((a, b) => a - b);
  const atPrimary = probes.filter(({ prompt }) => prompt === primary.prompt);
  const arms = [...new Set(probes.map(({ arm }) => arm))];
  const says = arms.flatMap((arm) => {
    const cells = ofKind(own, "says").filter(({ key }) => key.arm === arm)
      .sort((a, b) => a.key.seed - b.key.seed);
    return cells.length
      ? [saysNumbers(cells.map(({ result }) => result), cells.map(({ key }) => key.seed))]
      : [];
  });
  const compared = ofKind(here, "gradients").sort((a, b) => a.key.seed - b.key.seed);
  const gradients = compared.length ? gradientNumbers(compared.map(({ result }) => result)) : null;
  const tests = arms.flatMap((name): ArmTest[] => {
    const numbers = features.find((row) =>
      row.arm === name && row.prompt === primary.prompt && row.feature === primary.feature
    );
    const { role, marks } = planArm(name);
    if (!numbers) return [];
    return [{
      name,
      role,
      isCandidate: role === "watermark" && marks === "U1",
      numbers,
      says: says.find(({ arm }) => arm === name),
    }];
  });
  const isHere = (place: ArmScatter | HeatMap) =>
    place.model === model && place.data === data && place.batch === batch;
  return {
    ...{ model, data, batch, seeds, primary },
    people: probes[0].result.people,
    scenes: probes[0].result.scenes,
    arms: arms.map((name) => armFacts(input, own, name)),
    features,
    blind: seeds.flatMap((seed) => {
      const found = atPrimary.find((probe) => probe.seed === seed);
      return found ? [{ seed, ...found.result.blind }] : [];
    }),
    calibration: arms.flatMap((arm) => calibrationOf(arm, atPrimary.filter((probe) => probe.arm === arm))),
    power: arms.flatMap((arm) => powerOf(arm, atPrimary.filter((probe) => probe.arm === arm))),
    says,
    gradients,
    claims: [
      firstClaim(gradients ?? undefined),
      secondClaim(gradients ?? undefined),
      thirdClaim(tests),
    ],
    findings: studyFindings(tests, gradients, seeds, config.comparedTo),
    scatters: input.scatters.filter(isHere),
    heatMaps: input.heatMaps.filter(isHere),
  };
}

function ofKind<K extends CellResult["kind"]>(
  results: readonly CellResult[],
  kind: K,
): Extract<CellResult, { kind: K }>[] {
  return results.filter((result): result is Extract<CellResult, { kind: K }> => result.kind === kind);
}

/** As the configuration names it, else as the first prompt's cells chose it by names alone. */
function primaryFeature({ probe }: StudyConfig, probes: readonly Probed[]): Group["primary"] {
  const named = probe.primary, prompt = named?.slice(0, named.indexOf("/")) ?? probe.prompts[0].id;
  const feature = primaryOf(named, prompt) ??
    (probes.find((entry) => entry.prompt === prompt) ?? probes[0]).result.calibration.feature;
  return { prompt, feature };
}

function armFacts({ config, identities }: StudyInput, own: readonly CellResult[], name: string): ArmFacts {
  const { role, words } = planArm(name);
  const tunes = ofKind(own, "tune").filter(({ key }) => key.arm === name)
    .sort((a, b) => a.key.seed - b.key.seed);
  const { model: modelName, data, seed, batch } = own[0].key, first = tunes[0]?.result;
  const model = config.models.find((entry) => entry.name === modelName)!;
  const available = identities.data[`${data}/${seed}`].images;
  return {
    ...{ name, role, words },
    ...tuningOf(config, model, name, batch, available),
    marked: first?.marked ?? null,
    parameters: first?.parameters ?? null,
    trained: first?.trained ?? null,
    runs: tunes.map(({ key, result }) => ({ seed: key.seed, run: result.run })),
    losses: first?.losses ?? [],
    vqa: vqaNumbers(tunes.map(({ result }) => result)) ?? null,
  };
}

function calibrationOf(arm: string, probes: readonly Probed[]): Calibration[] {
  if (probes.length === 0) return [];
  const all = probes.map(({ result }) => result.calibration);
  const bins = Map.groupBy(all.flatMap((one) => one.bins), ({ low, high }) => `${low} ${high}`);
  return [{
    arm,
    feature: all[0].feature,
    methods: [...new Set(all.map(({ method }) => method))],
    ece: meanShare(all.map(({ ece }) => ece)),
    brier: meanShare(all.map(({ brier }) => brier)),
    abstained: meanShare(all.map(({ abstained }) => abstained)),
    bins: [...bins.values()].map((same) => {
      const n = same.reduce((sum, bin) => sum + bin.n, 0);
      const weighted = (of: (bin: (typeof same)[number]) => number) =>
        n === 0 ? 0 : same.reduce((sum, bin) => sum + bin.n * of(bin), 0) / n;
      const { low, high } = same[0];
      return {
        ...{ low, high, n },
        predicted: weighted(({ predicted }) => predicted),
        observed: weighted(({ observed }) => observed),
      };
    }).sort((a, b) => a.low - b.low),
  }];
}

function powerOf(arm: string, probes: readonly Probed[]): Group["power"] {
  const rows = Map.groupBy(
    probes.flatMap(({ result }) => result.power),
    ({ people, scenes }) => `${people} ${scenes}`,
  );
  return [...rows.values()].map((same) => ({
    arm,
    people: same[0].people,
    scenes: same[0].scenes,
    detectable: meanShare(same.map(({ detectable }) => detectable)),
  }));
}
