/**
 * A study's folder read in a way of its own: cells, JSON, lines and tensors. Takes what the study says about itself and nothing
 * that Afterimage worked out, but where a function here says so.
 */
import type { Folder } from "../../core/formats/folder.ts";
import type { Cell, Identities } from "../../core/study/cells.ts";
import type { StudyConfig } from "../../core/study/config.ts";

export interface StudyFiles {
  config: StudyConfig;
  identities: Identities;
  /** Those that are done. */
  cells: Cell[];
  missing: Cell[];
  folder: Folder;
}

export interface Tensor {
  shape: number[];
  /** Row after row. */
  values: number[];
}

const text = async (folder: Folder, path: string) => new TextDecoder().decode(await folder.read(path));
const pathOf = ({ kind, id }: Cell, file: string): string => `cells/${kind}-${id}/${file}`;

export async function readStudyFiles(folder: Folder): Promise<StudyFiles> {
  const { config, identities, cells } = JSON.parse(await text(folder, "study.json"));
  const done: Cell[] = [], missing: Cell[] = [];
  for (const cell of cells) {
    (await folder.exists(pathOf(cell, "manifest.json")) ? done : missing).push(cell);
  }
  return { config, identities, cells: done, missing, folder };
}

/** @throws where the cell has no such file: it was made before cells kept what an auditor needs */
export async function readJsonOf<T>({ folder }: StudyFiles, cell: Cell, file: string): Promise<T> {
  return JSON.parse(await text(folder, pathOf(cell, file)));
}

export async function readLinesOf<T>({ folder }: StudyFiles, cell: Cell, file: string): Promise<T[]> {
  if (!await folder.exists(pathOf(cell, file))) return [];
  return (await text(folder, pathOf(cell, file))).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

/** Every tensor of 32-bit floats, and the shapes of all; empty without the file. */
export async function readTensorsOf(
  { folder }: StudyFiles,
  cell: Cell,
  file: string,
): Promise<Map<string, Tensor>> {
  const out = new Map<string, Tensor>();
  if (!await folder.exists(pathOf(cell, file))) return out;
  const bytes = await folder.read(pathOf(cell, file));
  const view = new DataView(bytes.buffer, bytes.byteOffset), length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  for (const [name, { shape, dtype, data_offsets: [from, to] = [0, 0] }] of Object.entries<Entry>(header)) {
    if (name === "__metadata__") continue;
    const values = dtype !== "F32" ? [] : Array.from(
      { length: (to - from) / 4 },
      (_, i) => view.getFloat32(8 + length + from + 4 * i, true),
    );
    out.set(name, { shape, values });
  }
  return out;
}

interface Entry {
  shape: number[];
  dtype: string;
  data_offsets: [number, number];
}

export const rowsOf = ({ shape: [n, dim], values }: Tensor): number[][] =>
  Array.from({ length: n }, (_, i) => values.slice(i * dim, (i + 1) * dim));

/** What probes are fitted on. */
export interface Rows {
  /** One row a picture. */
  x: number[][];
  /** 1 for U1. */
  label: number[];
  person: string[];
  scene: string[];
}

interface Sample {
  id: string;
  set: string;
  person: string;
  scene: string;
}

export const labelled = (samples: readonly Sample[], x: number[][]): Rows => ({
  x,
  label: samples.map(({ set }) => set === "U1" ? 1 : 0),
  person: samples.map(({ person }) => person),
  scene: samples.map(({ scene }) => scene),
});

/** Samples and all features of an activations cell. */
export async function readActivationsOf(
  study: StudyFiles,
  cell: Cell,
): Promise<{ samples: Sample[]; features: Map<string, Rows> }> {
  const samples = await readLinesOf<Sample>(study, cell, "samples.jsonl"), features = new Map<string, Rows>();
  const parts = await study.folder.folder(`cells/${cell.kind}-${cell.id}`).list();
  for (const file of parts.filter((name) => /^activations.*\.safetensors$/.test(name)).sort()) {
    for (const [feature, tensor] of await readTensorsOf(study, cell, file)) {
      const rows = rowsOf(tensor), before = features.get(feature)?.x ?? [];
      features.set(feature, labelled(samples, [...before, ...rows]));
    }
  }
  return { samples, features };
}
