/**
 * `deno task merge`: writes a checkpoint with an adapter or a run merged into it, shard by shard, and compares logits
 * before and after. Refuses a folder that holds something else, and a result that computes something else.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { MANIFEST, readManifest, sha256, writeManifest } from "../core/formats/manifest.ts";
import {
  bytesOf,
  type FloatDtype,
  planShards,
  type Shard,
  shardChunks,
  shardIndex,
} from "../core/formats/shards.ts";
import { openGpu } from "../gpu/device.ts";
import { type Change, changeOfPeft, changeOfRun, mergedConfig, mergeTensors } from "../gpu/merge.ts";
import { checkBatch, checkLogits, TOLERANCE } from "../gpu/merge_check.ts";
import { logitsOf } from "../gpu/logits.ts";
import { relative } from "../gpu/parity.ts";
import { openTunedPeft, peftHash } from "../gpu/peft.ts";
import { modelHash, openTuned, openTunedRun } from "../gpu/session.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DiskFolder, writeStream } from "./folder.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { byteProgress } from "./progress.ts";

export const mergeSchema = z.object({
  ...modelFlags,
  run: z.string().optional().describe("folder of a finished run of that model"),
  peft: z.string().optional().describe("folder of an adapter that peft wrote, instead of a run"),
  out: z.string().describe("folder of the merged checkpoint"),
  dtype: z.enum(["keep", "f32", "bf16", "f16"]).default("keep").describe(
    "type of the merged weights; keep for each tensor's own",
  ),
  shardSize: z.string().regex(/^\d+(\.\d+)?(KB|MB|GB)$/, "expected a size such as 4GB").default("4GB")
    .describe(
      "largest file of weights",
    ),
  check: z.boolean().default(true).describe("write without comparing logits, where the model does not fit"),
  weights: z.enum(["f32", "bf16"]).default("f32").describe(
    "how matrices lie on the GPU while logits are compared",
  ),
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
});
type MergeConfig = z.infer<typeof mergeSchema>;

const UNITS: Record<string, number> = { KB: 1e3, MB: 1e6, GB: 1e9 };
const STATE = "merge.json";

/** What a merge that was stopped has written: the hash of its inputs, and finished files. */
interface State {
  identity: string;
  files: Record<string, { bytes: number; sha256: string }>;
}

interface Inputs {
  base: Folder;
  tuned: { run?: Folder; peft?: Folder };
  parents: Record<string, string>;
}

async function inputsOf({ model, mmProjector, visionTower, run, peft }: MergeConfig): Promise<Inputs> {
  if ((run === undefined) === (peft === undefined)) {
    throw new InputError("Cannot merge: need either --run or --peft");
  }
  const base = await modelFolder(model, { mmProjector, visionTower });
  const parents: Inputs["parents"] = { model: await modelHash(base) };
  if (run !== undefined) {
    const folder = new DiskFolder(run), { manifest, hash } = await readManifest(folder, "run");
    if (manifest.parents.model !== parents.model) {
      throw new InputError(
        `Cannot use "${run}": it was trained from the model ${manifest.parents.model}, "${model}" is ${parents.model}`,
      );
    }
    if (manifest.config.quant === "nf4" || manifest.config.weights === "nf4") {
      console.error(
        "The run was trained beside weights in 4 bits; merged are the checkpoint's own, whose logits differ by that rounding",
      );
    }
    return { base, tuned: { run: folder }, parents: { ...parents, run: hash } };
  }
  const folder = new DiskFolder(peft!);
  return { base, tuned: { peft: folder }, parents: { ...parents, adapter: await peftHash(folder) } };
}

/** What is left of an earlier call. @throws InputError for a folder that is finished or holds something else */
async function resumeIn(out: DiskFolder, identity: string): Promise<State> {
  if (await out.exists(MANIFEST)) {
    throw new InputError(`Cannot merge into "${out.path}": it is finished already`);
  }
  if (await out.exists(STATE)) {
    const state = await readJson(out, STATE) as State;
    if (state.identity === identity) {
      await removeHalves(out.path);
      return state;
    }
    throw new InputError(
      `Cannot go on in "${out.path}": it was begun with other settings; choose another folder`,
    );
  }
  if ((await out.list()).length) throw new InputError(`Cannot merge into "${out.path}": it is not empty`);
  return { identity, files: {} };
}

/** Removes what a killed process left half written. */
async function removeHalves(folder: string): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(".partial")) await Deno.remove(`${folder}/${name}`);
  }
}

/** Files beside the weights that belong to a checkpoint: settings, tokenizer, processor, remote code, licence. */
const isCompanion = (name: string) =>
  !name.includes("/") && name !== MANIFEST && name !== "config.json" && !name.endsWith(".index.json") &&
  (/\.(json|txt|model|tiktoken|jinja|py|md|ttf)$/.test(name) || /^(LICEN[CS]E|NOTICE)/.test(name));

async function writeShards(
  out: DiskFolder,
  shards: readonly Shard[],
  state: State,
  signal?: AbortSignal,
): Promise<void> {
  const total = shards.reduce((sum, { bytes }) => sum + bytes, 0);
  const stopped = "Stopped; the same command goes on after the last whole file";
  const bar = byteProgress("writing", total, { signal, stopped });
  for (const shard of shards) {
    const known = state.files[shard.file];
    const isWhole = known && await Deno.stat(`${out.path}/${shard.file}`).then(
      ({ size }) => size === known.bytes,
      () => false,
    );
    if (!isWhole) {
      state.files[shard.file] = await writeStream(
        `${out.path}/${shard.file}`,
        bar.through(shardChunks(shard), shard.file),
      );
      await out.write(STATE, JSON.stringify(state));
    } else bar.skip(shard.bytes);
  }
  bar.stop();
}

/** Relative differences of logits: the merged model against base and adapter, and what the adapter does at all. */
async function compare(config: MergeConfig, { base, tuned }: Inputs, out: Folder) {
  const gpu = await openGpu(config.adapter), { weights } = config;
  const before = tuned.run
    ? await openTunedRun(gpu, base, tuned.run, weights)
    : await openTunedPeft(gpu, base, tuned.peft!, { weights });
  const batch = await checkBatch(before.model, base), { logits, effect } = await checkLogits(before, batch);
  before.close();
  const merged = await openTuned(gpu, out, { weights }),
    difference = relative(await logitsOf(merged, batch), logits);
  merged.close();
  gpu.close();
  return {
    tokens: batch.ids.length,
    pictures: batch.images.length,
    adapter_rel: effect,
    logits_rel: difference,
  };
}

/** Of the coarsest type among what is written and what the comparison computes with. */
function toleranceOf({ weights }: MergeConfig, shards: readonly Shard[]): number {
  const types = new Set(shards.flatMap(({ tensors }) => tensors.map(({ dtype }) => dtype as FloatDtype)));
  if (weights === "bf16") types.add("BF16");
  return Math.max(...[...types].map((type) => TOLERANCE[type] ?? 0));
}

/**
 * Merges and returns what was done; `kept` is false where the logits differed by more than the type explains, and the
 * folder is gone then. @throws InputError for inputs that do not fit, Interrupted with whole files left to go on from
 */
export async function merge(config: MergeConfig, signal?: AbortSignal) {
  const inputs = await inputsOf(config), { base, tuned } = inputs, out = new DiskFolder(config.out);
  const dtype = config.dtype === "keep" ? "keep" : config.dtype.toUpperCase() as FloatDtype;
  const [, size, unit] = config.shardSize.match(/^([\d.]+)(..)$/)!, limit = Number(size) * UNITS[unit];
  const state = await resumeIn(out, await sha256(JSON.stringify({ ...inputs.parents, dtype, limit })));
  const json = await readJson(base, "config.json"), source = await openWeights(base);
  let change: Change | undefined;
  try {
    change = await (tuned.run ? changeOfRun(json, tuned.run) : changeOfPeft(json, tuned.peft!));
    const shards = planShards(mergeTensors(source, change, dtype), limit), index = shardIndex(shards);
    await out.write(STATE, JSON.stringify(state));
    await out.write("config.json", await mergedConfig(base, change, dtype));
    for (const name of (await base.list()).filter(isCompanion)) await out.write(name, await base.read(name));
    if (index) await out.write("model.safetensors.index.json", index);
    await writeShards(out, shards, state, signal);
    const tolerance = toleranceOf(config, shards);
    const checked = config.check ? { ...await compare(config, inputs, out), tolerance } : null;
    const kept = !checked || checked.logits_rel <= tolerance;
    const facts = {
      merged: change.adapters.size,
      replaced: change.whole.size,
      bytes: shards.flatMap(({ tensors }) => tensors).reduce((sum, tensor) => sum + bytesOf(tensor), 0),
      checked,
    };
    if (kept) {
      await out.remove(STATE);
      await writeManifest(out, {
        ...{ kind: "model", parents: inputs.parents, config: { ...config }, facts, known: state.files },
      });
    } else await Deno.remove(out.path, { recursive: true });
    return { kept, ...facts };
  } finally {
    source.close();
    change?.source.close();
  }
}

if (import.meta.main) {
  await runTask({
    name: "merge",
    summary: "Write a checkpoint with an adapter or a run merged into it",
    schema: mergeSchema,
    examples: [
      "deno task merge --run runs/first --out models/merged",
      "deno task merge --model path/to/llava --peft path/to/adapter --out models/merged --dtype bf16",
    ],
    async run(config) {
      const { kept, ...facts } = await merge(config, interruptSignal());
      console.log(JSON.stringify(facts));
      if (kept) return;
      const { logits_rel, tolerance } = facts.checked!;
      console.error(
        `merge: Cannot keep "${config.out}": its logits differ by ${logits_rel} from those of base and adapter, expected at most ${tolerance}`,
      );
      Deno.exitCode = 1;
    },
  });
}
