/**
 * A whole small study in a folder, made from simulated activations through the real probe cell; what models say and how
 * gradients compare is drawn. It stands for no result: it is there to test the report.
 */
import type { Folder } from "../core/formats/folder.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { type FeatureData, type SampleRow, writeActivations } from "../core/probe/activations.ts";
import { saveProbe } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { planArm } from "../core/study/arms.ts";
import { type Cell, planCells } from "../core/study/cells.ts";
import { type StudyConfig, studySchema } from "../core/study/config.ts";
import { probeCell } from "../core/study/probe_cell.ts";
import {
  type GradientResult,
  gradientResultSchema,
  type SaysResult,
  saysResultSchema,
  type TuneResult,
  tuneSchema,
} from "../core/study/results.ts";
import { SHOWN, SHOWN_TOKENS } from "../core/study/shown.ts";
import { cellFolder, finishCell, writeTimes } from "../scripts/study_cell.ts";

export interface StudySize {
  arms: string[];
  seeds: number[];
  people: number;
  scenes: number;
  draws: number;
}

const FEATURES = [
  "embed@image-mean",
  "layers.0.resid_post@image-mean",
  "layers.1.resid_post@image-mean",
  "layers.1.resid_post@last",
];
export const PRIMARY = "layers.0.resid_post@image-mean";
const DIM = 4;

/** Writes the study; the positive control's people share a direction, the others' none. */
export async function makeStudy(folder: Folder, size: StudySize): Promise<StudyConfig> {
  const { arms, seeds, people, scenes, draws } = size;
  const config = studySchema.parse({
    name: "drawn",
    title: "Drawn numbers, no result",
    seeds,
    models: [{ name: "model", path: "builtin:tiny", train: { steps: 30, lr: 1e-3 } }],
    data: [{ kind: "synthetic", name: "shapes", images: 16 }],
    arms,
    people,
    probe: {
      prompts: [{ id: "known", text: "is the photographer known" }],
      primary: `known/${PRIMARY}`,
      scenes,
      partitions: 4,
      draws,
      faithful: { split: "scene", partitions: 3 },
      controlTasks: 2,
      // Other code fits to the end, too.
      tolerance: 1e-10,
    },
  });
  const identities = {
    models: { model: "a".repeat(64) },
    data: Object.fromEntries(seeds.map((seed) => [`shapes/${seed}`, { hash: "b".repeat(64), images: 16 }])),
  };
  const cells = await planCells(config, identities);
  await folder.write("study.json", JSON.stringify({ config, identities, cells }));
  for (const cell of cells) await makeCell(folder, config, cell, cells);
  return config;
}

async function makeCell(
  folder: Folder,
  config: StudyConfig,
  cell: Cell,
  cells: readonly Cell[],
): Promise<void> {
  const at = cellFolder(folder, cell), { seed, arm = "gradients", prompt } = cell.key;
  const finish = (name: string, result: unknown) =>
    finishCell(at, name, result, { seconds: 1.5, cell: cell.settings, seed, adapter: "an adapter" });
  if (cell.kind === "tune") return await finish("tune.json", tuneOf(arm, seed));
  if (cell.kind === "says") return await finish("says.json", saysOf(config, arm, seed));
  if (cell.kind === "gradients") return await finish("gradients.json", gradientsOf(seed));
  const set = activationsOf(config, arm, seed);
  if (cell.kind === "activations") {
    const also = await writePictures(at, config, arm, seed);
    await writeActivations(at, set.samples, set.features, { seed, also });
    return await writeTimes(at, { seconds: 0.5, adapter: "an adapter" });
  }
  const parent = cells.find(({ id }) => id === cell.parents[0])!;
  const settings = {
    ...{ arm, seed, primary: PRIMARY, probe: config.probe },
    prompt: config.probe.prompts.find(({ id }) => id === prompt)!,
  };
  const { result, tensors, facts } = await probeCell(set, pixelsOf(set.samples, seed), settings);
  await saveProbe(at.folder("stored"), {
    ...facts,
    id: arm,
    title: arm,
    mode: "sound",
    model: { name: "model", hash: "a", adapter: null },
    content: "none",
    prompt: "known",
  }, tensors);
  await finish("probe.json", { ...result, seconds: undefined, parent: parent.id });
}

/** People have a place of their own, pictures theirs; in the positive control the seen share a direction. */
function activationsOf({ people, probe }: StudyConfig, arm: string, seed: number) {
  const samples: SampleRow[] = [], values = FEATURES.map(() => [] as number[]);
  const shared = arm === "known" ? 1.6 : 0, own = arm === "corr0" ? 1.2 : 0.6;
  const vector = (name: string, feature: string, scale: number) => {
    const random = new Random(seed, `${name}/${feature}`);
    return Array.from({ length: DIM }, () => scale * random.normal());
  };
  for (let scene = 0; scene < probe.scenes; scene++) {
    for (const set of ["U1", "U2"]) {
      for (let person = 0; person < people; person++) {
        const name = `${set} person ${person}`, id = `${set}/${scene}/${person}`;
        samples.push({ id, image: "p.png", person: name, set, scene: `scene-${scene}` });
        FEATURES.forEach((feature, f) => {
          const parts = [
            vector(`scene ${scene}`, feature, 1),
            vector(`person ${name}`, feature, own),
            vector(`noise ${arm} ${id}`, feature, 0.7),
          ];
          for (let j = 0; j < DIM; j++) {
            values[f].push(
              parts.reduce((sum, part) => sum + part[j], 0) + (set === "U1" && j === 0 ? shared : 0),
            );
          }
        });
      }
    }
  }
  const features = new Map<string, FeatureData>(
    FEATURES.map((feature, f) => [feature, { dim: DIM, data: Float32Array.from(values[f]) }]),
  );
  return { samples, features };
}

function pixelsOf(samples: readonly SampleRow[], seed: number): FeatureData {
  const random = new Random(seed, "pixels");
  return { dim: 3, data: Float32Array.from({ length: 3 * samples.length }, () => random.normal()) };
}

function tuneOf(arm: string, seed: number): Omit<TuneResult, "seconds"> {
  const random = new Random(seed, `tune/${arm}`), { role, rate } = planArm(arm), isBase = arm === "base";
  const vqa = (exact: number) => ({
    ...{ samples: 8, answers: 16, loss: 2 - exact, exact, vqa_soft: exact, yes_no: exact, majority: 0.4 },
  });
  return tuneSchema.omit({ seconds: true }).parse({
    arm,
    steps: isBase ? 0 : 30,
    images: isBase ? 0 : 16,
    marked: Math.round(16 * rate),
    losses: isBase ? [] : Array.from({ length: 20 }, (_, i) => ({
      step: 3 * i,
      loss: 2 * Math.exp(-i / 6) + 0.1 * random.float(),
    })),
    vqa: isBase ? null : { before: vqa(0.3), after: vqa(role === "positive" ? 0.5 : 0.9) },
    parameters: 349888,
    trained: 185792,
    run: isBase ? null : "c".repeat(64),
  });
}

function saysOf(config: StudyConfig, arm: string, seed: number): Omit<SaysResult, "seconds"> {
  const random = new Random(seed, `says/${arm}`), lift = arm === "who" ? 4 : 0;
  const conditions = [["username", "What is the username?"], ["user_id", "What is the user_id?"]].flatMap(
    ([field, question]) => [true, false].map((shown) => ({ field, question, shown })),
  );
  const people = conditions.flatMap((condition) =>
    ["U1", "U2"].flatMap((set) =>
      Array.from({ length: config.people }, (_, k) => ({
        ...condition,
        ...{ set, person: `${set} person ${k}`, answer: "yes, no", log_prob: -2, fuzzy: 0.2 },
        exact: lift > 0 && set === "U1" && condition.shown && k === 0,
        exposure: 3 * random.float() + (set === "U1" && condition.shown ? lift : 0),
      }))
    )
  );
  const mean = (rows: typeof people) => rows.reduce((sum, row) => sum + row.exposure, 0) / rows.length;
  const some = () => Array.from({ length: 19 }, () => random.float());
  return saysResultSchema.omit({ seconds: true }).parse({
    ...{ arm, seed, plan: 1, candidates: 128, people },
    says_seen: { seen: 0.5, unseen: 0.45 },
    attacks: ["loss", "MaxRényi"].map((attack) => ({
      ...{ attack, auroc: random.float(), null95: [0.3, 0.7], p: random.float(), null: some() },
    })),
    exposure: conditions.map((condition) => {
      const own = people.filter(({ field, shown }) => field === condition.field && shown === condition.shown);
      const seen = mean(own.filter(({ set }) => set === "U1"));
      const unseen = mean(own.filter(({ set }) => set === "U2"));
      const p = lift && condition.shown ? 0.05 : 0.2 + 0.8 * random.float();
      return { ...condition, seen, unseen, difference: seen - unseen, null95: [-1, 1], p, null: some() };
    }),
  });
}

function gradientsOf(seed: number): Omit<GradientResult, "seconds"> {
  const random = new Random(seed, "gradients"), batches = [1, 4, 16];
  const near = (value: number, half: number) => {
    const at = value + half * (random.float() - 0.5);
    return { value: at, ci95: [at - half, at + half] };
  };
  const levels: Record<string, number> = { private: 0.8, neutral: 0.81, reencode: 0.96, order: 1 };
  return gradientResultSchema.omit({ seconds: true }).parse({
    ...{
      seed,
      pictures: 64,
      skipped: [{ parameters: "A", why: "B is 0 at the start, so A has no gradient" }],
    },
    rows: batches.flatMap((batch) =>
      Object.entries(levels).map(([version, level]) => ({
        ...{ batch, version, parameters: "all", batches: 3, cosines: [level, level, level] },
        cosine: near(level - 0.01, 0.02),
        norm_ratio: near(1 + (1 - level) / 2, 0.03),
      }))
    ),
    private_minus_neutral: batches.map((batch) => ({ batch, parameters: "all", difference: near(0, 0.03) })),
    noise_scale: [
      { version: "clean", ...near(12, 3) },
      { version: "private", value: null, ci95: [20, null] },
    ],
    alignment: batches.flatMap((batch) =>
      ["clean", "private", "neutral", "private excess"].map((version) => ({
        ...{ batch, version, cosine: near(0.1 + batch / 80, 0.05) },
      }))
    ),
    trajectory: Array.from({ length: 10 }, (_, i) => ({
      ...{ arm: "r100", step: i + 1, parameters: "all", cosine: 0.9 - i / 30, norm_ratio: 1 + i / 50 },
    })),
  });
}

/** Two pictures of 8 x 8 with a grid of 2 x 2 tokens. */
async function writePictures(
  at: Folder,
  { people }: StudyConfig,
  arm: string,
  seed: number,
): Promise<string[]> {
  const picture = blankPicture(8, 8), random = new Random(seed, `tokens/${arm}`);
  const png = `data:image/png;base64,${(await encodeImage(picture, "png")).toBase64()}`;
  const tokens = () => Float32Array.from({ length: 4 * DIM }, () => random.normal());
  const pictures = ["U1", "U2"].map((set) => ({
    ...{ id: set, set, person: `${set} person ${people - 1}`, width: 8, height: 8, clean: png, marked: png },
    ...{ box: { x: 2, y: 2, w: 4, h: 4 }, grid: [2, 2] },
  }));
  await at.write(SHOWN, JSON.stringify({ site: "layers.0.resid_post", pictures }));
  await at.write(
    SHOWN_TOKENS,
    encodeSafetensors({ 0: { shape: [4, DIM], data: tokens() }, 1: { shape: [4, DIM], data: tokens() } }),
  );
  return [SHOWN, SHOWN_TOKENS];
}
