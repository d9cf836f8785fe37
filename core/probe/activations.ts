/**
 * Activation sets on disk: one row a sample in `samples.jsonl`, and for every feature a matrix, cut into safetensors shards.
 * Refuses rows without an identity, features whose shards disagree, and values that are not finite.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import type { Folder } from "../formats/folder.ts";
import { MANIFEST, type ManifestInput, readManifest, writeManifest } from "../formats/manifest.ts";
import { encodeSafetensors, SafetensorsFile, type TensorData } from "../formats/safetensors.ts";

export const SAMPLES = "samples.jsonl";
const SHARD = /^activations-(\d{5})-of-(\d{5})\.safetensors$/;
const FEATURE = /^[^@\s]+@[^@\s]+$/;

export const sampleRowSchema = z.strictObject({
  id: z.string().min(1),
  /** The picture's path inside its data set. */
  image: z.string().min(1),
  /** Whose private content the picture carries; null for none. */
  person: z.string().min(1).nullable(),
  /** The person's set, "U1" or "U2" as a rule; "none" where there is no person. */
  set: z.string().min(1),
  /** What the picture shows apart from the watermark: rows of one scene differ in the person only. */
  scene: z.string().min(1),
});
export type SampleRow = z.infer<typeof sampleRowSchema>;

/** Held-out pictures as rows of an activation set, one a person and scene. */
export function pairedRows(
  pictures: readonly { id: string; scene: number; set: string; person: { username: string } }[],
): SampleRow[] {
  return pictures.map(({ id, scene, set, person }) => ({
    id,
    image: `${id}.png`,
    person: person.username,
    set,
    scene: `scene-${scene}`,
  }));
}

/** Values of one feature for all samples, row after row: (n, dim). */
export interface FeatureData {
  dim: number;
  data: Float32Array;
}

export interface ActivationSet {
  /** n rows. */
  samples: SampleRow[];
  /** Keyed "site@reduction", such as "layers.1.resid_post@image-mean". */
  features: Map<string, FeatureData>;
}

/** The two parts of a feature's name. @throws InputError unless it is "site@reduction" */
export function parseFeature(feature: string): { site: string; reduction: string } {
  if (!FEATURE.test(feature)) {
    throw new InputError(
      `Cannot use the feature "${feature}": expected a name such as "layers.1.resid_post@last"`,
    );
  }
  const [site, reduction] = feature.split("@");
  return { site, reduction };
}

/** What is recorded beside the files themselves: parents, seed, config, facts, and files that were written before. */
export type ActivationsManifest = Omit<ManifestInput, "kind" | "files" | "known"> & { also?: string[] };

/**
 * Writes an activation set, its manifest last; shards hold at most `rowsPerShard` rows.
 * @throws InputError for no rows, a row that does not fit the schema, or a matrix of another size
 */
export async function writeActivations(
  folder: Folder,
  rows: readonly SampleRow[],
  features: ReadonlyMap<string, FeatureData>,
  { also = [], ...manifest }: ActivationsManifest = {},
  rowsPerShard = 16_384,
): Promise<{ hash: string }> {
  const what = `Cannot write activations to "${folder.path}"`;
  rows.forEach((row, i) => checkRow(row, `${what}: row ${i + 1}`));
  checkIds(rows, what);
  if (!features.size) throw new InputError(`${what}: there is no feature`);
  for (const [feature, { dim, data }] of features) {
    parseFeature(feature);
    if (dim < 1 || data.length !== rows.length * dim) {
      throw new InputError(
        `${what}: "${feature}" has ${data.length} values, expected ${rows.length} x ${dim}`,
      );
    }
    checkFinite(data, dim, (row) => `${what}: "${feature}" of sample "${rows[row].id}"`);
  }
  // An artifact that is being replaced is none until its new manifest stands; shards of another count must not stay.
  if (await folder.exists(MANIFEST)) await folder.remove(MANIFEST);
  for (const name of await folder.list()) if (SHARD.test(name)) await folder.remove(name);
  await folder.write(SAMPLES, rows.map((row) => JSON.stringify(row) + "\n").join(""));
  const shards = Math.ceil(rows.length / rowsPerShard), files = [SAMPLES];
  for (let shard = 0; shard < shards; shard++) {
    const from = shard * rowsPerShard, to = Math.min(rows.length, from + rowsPerShard);
    const tensors: Record<string, TensorData> = {};
    for (const [feature, { dim, data }] of features) {
      tensors[feature] = { shape: [to - from, dim], data: data.subarray(from * dim, to * dim) };
    }
    const name = `activations-${pad(shard + 1)}-of-${pad(shards)}.safetensors`;
    await folder.write(name, encodeSafetensors(tensors));
    files.push(name);
  }
  const dims = Object.fromEntries([...features].map(([feature, { dim }]) => [feature, dim]));
  const facts = { samples: rows.length, features: dims, ...manifest.facts };
  const { hash } = await writeManifest(folder, {
    ...manifest,
    facts,
    files: [...files, ...also],
    kind: "activations",
  });
  return { hash };
}

/**
 * Reads an activation set after checking every file against its manifest; also the manifest's hash, the set's name.
 * @throws InputError naming the file, the line, the shard or the feature that is wrong
 */
export async function readActivations(folder: Folder): Promise<ActivationSet & { hash: string }> {
  const { manifest, hash } = await readManifest(folder, "activations", { verify: true });
  const samples = parseRows(
    new TextDecoder().decode(await folder.read(SAMPLES)),
    `${folder.path}/${SAMPLES}`,
  );
  const shards = shardNames(Object.keys(manifest.files), folder.path);
  const features = new Map<string, FeatureData>();
  let done = 0;
  for (const [index, name] of shards.entries()) {
    const source = await folder.open(name);
    try {
      const file = await SafetensorsFile.open(source);
      const rows = [...file.entries.values()][0]?.shape[0] ?? 0;
      checkShard(file, features, index, rows);
      if (done + rows > samples.length) {
        throw new InputError(
          `Cannot read "${source.name}": it ends at row ${done + rows}, "${SAMPLES}" has ${samples.length}`,
        );
      }
      for (const [feature, { shape: [, dim] }] of file.entries) {
        if (index === 0) features.set(feature, { dim, data: new Float32Array(samples.length * dim) });
        const values = await file.f32(feature);
        checkFinite(
          values,
          dim,
          (row) => `Cannot read "${source.name}": "${feature}" of sample "${samples[done + row].id}"`,
        );
        features.get(feature)!.data.set(values, done * dim);
      }
      done += rows;
    } finally {
      source.close();
    }
  }
  if (done !== samples.length) {
    throw new InputError(
      `Cannot read "${folder.path}": its shards hold ${done} rows, "${SAMPLES}" has ${samples.length}`,
    );
  }
  return { samples, features, hash };
}

function checkShard(
  file: SafetensorsFile,
  features: ReadonlyMap<string, FeatureData>,
  index: number,
  rows: number,
): void {
  const what = `Cannot read "${file.source.name}"`;
  if (!file.entries.size) throw new InputError(`${what}: it holds no feature`);
  for (const [feature, { dtype, shape }] of file.entries) {
    parseFeature(feature);
    if (dtype !== "F32" || shape.length !== 2 || shape[0] !== rows || shape[1] < 1) {
      throw new InputError(`${what}: "${feature}" is ${dtype} (${shape}), expected F32 (${rows}, D)`);
    }
    const dim = features.get(feature)?.dim;
    if (index > 0 && dim !== shape[1]) {
      throw new InputError(
        `${what}: "${feature}" is ${shape[1]} wide, ${dim ?? "absent"} in the first shard`,
      );
    }
  }
  for (const feature of features.keys()) file.entry(feature);
}

function shardNames(names: string[], path: string): string[] {
  const shards = names.filter((name) => SHARD.test(name)).sort();
  const expected = shards.map((_, i) => `activations-${pad(i + 1)}-of-${pad(shards.length)}.safetensors`);
  const wrong = shards.find((name, i) => name !== expected[i]);
  if (!shards.length || wrong) {
    throw new InputError(
      `Cannot read "${path}": ${
        wrong ? `"${wrong}" does not belong to ${shards.length} shards` : "it has no shard"
      }`,
    );
  }
  return shards;
}

function parseRows(text: string, path: string): SampleRow[] {
  const rows = text.split("\n").filter((line) => line.trim() !== "").map((line, i) => {
    const what = `Cannot read "${path}": line ${i + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw new InputError(`${what} is no JSON`);
    }
    return checkRow(value, what);
  });
  checkIds(rows, `Cannot read "${path}"`);
  return rows;
}

function checkRow(value: unknown, what: string): SampleRow {
  const parsed = sampleRowSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new InputError(`${what}, ${path.length ? `field "${path.join(".")}"` : "the record"}: ${message}`);
}

function checkIds(rows: readonly SampleRow[], what: string): void {
  if (!rows.length) throw new InputError(`${what}: there is no sample`);
  const seen = new Set<string>();
  for (const { id } of rows) {
    if (seen.has(id)) throw new InputError(`${what}: the sample id "${id}" occurs twice`);
    seen.add(id);
  }
}

function checkFinite(data: Float32Array, dim: number, what: (row: number) => string): void {
  const at = data.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw new InputError(`${what(Math.floor(at / dim))} holds ${data[at]} at index ${at % dim}`);
}

const pad = (n: number): string => String(n).padStart(5, "0");
