/**
 * A whole small study in a folder, of drawn activations and of cells that study_report_cells.ts draws; all behind them is worked
 * out as in a real one. It stands for no result: it is there to test the report.
 */
import type { Folder } from "../core/formats/folder.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { type FeatureData, type SampleRow, writeActivations } from "../core/probe/activations.ts";
import { saveProbe } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { type Cell, planCells, primaryOf } from "../core/study/cells.ts";
import { type StudyConfig, type StudyConfigInput, studySchema } from "../core/study/config.ts";
import { PIXELS } from "../core/study/evidence.ts";
import { probeCell } from "../core/study/probe_cell.ts";
import { SHOWN, SHOWN_TOKENS } from "../core/study/shown.ts";
import { cellFolder, finishCell, writeTimes } from "../scripts/study_cell.ts";
import { writeGradients, writeSays, writeTune } from "./study_report_cells.ts";

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

/**
 * Writes the study; the positive control's people share a direction, the others' none.
 * @param probe settings other than those below @param more of the configuration
 */
export async function makeStudy(
  folder: Folder,
  size: StudySize,
  probe: StudyConfigInput["probe"] = {},
  more: Partial<StudyConfigInput> = {},
): Promise<StudyConfig> {
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
      faithful: { split: "scene", partitions: 3, tol: 1e-10 },
      controlTasks: 2,
      // Other code fits to the end, too.
      tolerance: 1e-10,
      ...probe,
    },
    ...more,
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
  if (cell.kind === "tune") return await finish("tune.json", await writeTune(at, arm, seed));
  if (cell.kind === "says") return await finish("says.json", await writeSays(at, config, arm, seed));
  if (cell.kind === "gradients") return await finish("gradients.json", await writeGradients(at, seed));
  const set = activationsOf(config, arm, seed);
  if (cell.kind === "activations") {
    const also = await writePictures(at, config, arm, seed);
    await writeActivations(at, set.samples, set.features, { seed, also });
    return await writeTimes(at, { seconds: 0.5, adapter: "an adapter" });
  }
  const parent = cells.find(({ id }) => id === cell.parents[0])!;
  const settings = {
    ...{ arm, seed, primary: primaryOf(config.probe.primary, prompt!), probe: config.probe },
    prompt: config.probe.prompts.find(({ id }) => id === prompt)!,
  };
  const pixels = pixelsOf(set.samples, seed), shape = [set.samples.length, pixels.dim];
  await at.write(PIXELS, encodeSafetensors({ pixels: { shape, data: pixels.data } }));
  const { result, tensors, facts } = await probeCell(set, pixels, settings);
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
