/**
 * `deno task check`: the step that a data pipeline calls before it goes on. Exit code 0 is clean, 1 flagged, 2 an error.
 * It asks a service or scores here, with the same code; it refuses to call a check clean in which nothing was answered.
 */
import { z } from "zod";
import { InputError, Interrupted, messageOf } from "../core/errors.ts";
import { promptSchema } from "../core/text/codec.ts";
import { createApp } from "../functions/app.ts";
import { type Client, createClient } from "../functions/client.ts";
import type { NamedImage } from "../functions/client_batch.ts";
import { ServiceError } from "../functions/client_error.ts";
import type { Encoder } from "../functions/encoder.ts";
import { onnxEncoder, verifyModel } from "../functions/onnx_encoder.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import type { ServedProbe } from "../functions/store/types.ts";
import { type Checked, checkedOf, exitCode, junit, summary, tally } from "./check_report.ts";
import { picturePaths } from "./check_images.ts";
import { interruptSignal, isRefusal, runTask, type Task } from "./cli.ts";
import { DiskFolder, writeFile } from "./folder.ts";
import { modelFlags } from "./model.ts";
import { progress } from "./progress.ts";
import { tunedFlags } from "./tuned.ts";
import { weightSettings } from "./weights.ts";

const KEY = "AFTERIMAGE_KEY";

const schema = z.object({
  probe: z.string().describe(
    "id of a probe of the service at --url; without --url the folder of a probe or bundle",
  ),
  images: z.string().describe(
    'a folder, a pattern such as "new/*.png", or - for a list of paths on standard input',
  ),
  url: z.url({ protocol: /^https?$/ }).optional().describe(`the service to ask; its key is read from ${KEY}`),
  fpr: z.enum(["0.01", "0.001"]).default("0.01").describe(
    "share of unseen people's pictures that may be flagged",
  ),
  maxFlagged: z.number().int().min(0).default(0).describe("so many flagged pictures are let pass"),
  junit: z.string().optional().describe("file for the result as JUnit XML"),
  jsonl: z.string().optional().describe(
    "file for every answer, a line of JSON each, as they come; - is stdout",
  ),
  concurrency: z.number().int().min(1).max(64).default(4).describe("requests side by side"),
  ...modelFlags,
  run: tunedFlags.run.describe(
    "folder of the run that the probe was fitted on, if it has no encoder of its own",
  ),
  peft: tunedFlags.peft.describe("folder of the adapter that the probe was fitted on, if peft wrote it"),
  ...promptSchema.shape,
  ...weightSettings,
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
});
type Settings = z.infer<typeof schema>;

/** A service inside this process, over one probe: here is what answers over HTTP. */
async function localClient(settings: Settings): Promise<{ id: string; client: Client; close(): void }> {
  const fail = (why: string) => new InputError(`Cannot check with "${settings.probe}": ${why}`);
  const info = await Deno.stat(settings.probe).catch(() => undefined);
  if (!info?.isDirectory) {
    throw fail(`${info ? "it is a file" : "there is no such folder"}, expected a probe's or bundle's folder`);
  }
  const store = folderStore(new DiskFolder(settings.probe));
  const probes = await store.list();
  if (probes.length !== 1) throw fail(`it holds ${probes.length} finished probes or bundles, expected one`);
  await verifyModel(probes[0]);
  const { encoder, close } = await localEncoder(probes[0], settings);
  const app = createApp({ store, encoder });
  const send = (input: RequestInfo | URL, init?: RequestInit) =>
    Promise.resolve(app.fetch(new Request(input, init)));
  const client = createClient("http://here", { fetch: send as typeof fetch, retries: 0, concurrency: 2 });
  return { id: probes[0].id, client, close };
}

async function localEncoder(
  probe: ServedProbe,
  settings: Settings,
): Promise<{ encoder: Encoder; close(): void }> {
  if (probe.encoder.kind === "onnx") return { encoder: onnxEncoder(), close: () => {} };
  // Imported here alone: neither a service nor a bundle with an encoder needs WebGPU.
  const { openGpuEncoder } = await import("./check_gpu.ts");
  return await openGpuEncoder(probe, settings);
}

async function* pictures(paths: readonly string[]): AsyncGenerator<NamedImage> {
  for (const path of paths) yield { name: path.slice(-200), image: await readPicture(path) };
}

async function readPicture(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    throw new InputError(`Cannot read "${path}": ${messageOf(error)}`);
  }
}

interface Asked {
  id: string;
  client: Client;
  fpr: 0.01 | 0.001;
  jsonl?: string;
  signal: AbortSignal;
}

/** Asks about every picture, in order. */
async function checkAll(
  paths: readonly string[],
  { id, client, fpr, jsonl, signal }: Asked,
): Promise<Checked[]> {
  const bar = progress("checking", paths.length), checked: Checked[] = [];
  const file = jsonl === undefined || jsonl === "-"
    ? undefined
    : await Deno.open(jsonl, { write: true, create: true, truncate: true });
  const write = async (line: string) => {
    if (jsonl === "-") console.log(line);
    const bytes = new TextEncoder().encode(`${line}\n`);
    for (let done = 0; file && done < bytes.length;) done += await file.write(bytes.subarray(done));
  };
  let flagged = 0;
  try {
    for await (const line of client.batch(id, pictures(paths), { fpr, signal })) {
      const picture = checkedOf(paths[line.index], line);
      checked.push(picture);
      if (jsonl !== undefined) await write(JSON.stringify(picture));
      flagged += picture.score?.decision.answer === "flagged" ? 1 : 0;
      bar.update(checked.length, `${flagged} flagged`);
    }
  } catch (thrown) {
    if (signal.aborted) {
      throw new Interrupted(`Interrupted after ${checked.length} of ${paths.length} pictures`);
    }
    if (thrown instanceof ServiceError) throw new InputError(thrown.message);
    throw thrown;
  } finally {
    bar.stop();
    file?.close();
  }
  return checked;
}

async function check(settings: Settings, more: string[]): Promise<void> {
  const { url, maxFlagged, concurrency, jsonl } = settings, fpr = settings.fpr === "0.01" ? 0.01 : 0.001;
  const paths = await picturePaths([settings.images, ...more]), signal = interruptSignal();
  const key = Deno.env.get(KEY), start = performance.now();
  // A path that cannot be written fails now, not after an hour; a check that stops leaves no older result behind.
  if (settings.junit !== undefined) await writeFile(settings.junit, junit(settings.probe, [], 0));
  const { id, client, close } = url === undefined
    ? await localClient(settings)
    : { id: settings.probe, client: createClient(url, { key, concurrency }), close: () => {} };
  try {
    const checked = await checkAll(paths, { id, client, fpr, jsonl, signal });
    if (settings.junit !== undefined) {
      await writeFile(settings.junit, junit(id, checked, (performance.now() - start) / 1000));
    }
    const words = summary(checked, maxFlagged);
    if (jsonl === "-") console.error(words);
    else console.log(words);
    Deno.exitCode = exitCode(tally(checked), maxFlagged);
  } finally {
    close();
  }
}

const checkTask: Task<typeof schema> = {
  name: "check",
  summary: "Check pictures with a probe: exit code 0 clean, 1 flagged, 2 error",
  schema,
  args: "[more...]",
  examples: [
    "deno task check --probe example --images incoming/ --url http://127.0.0.1:8787 --junit check.xml",
    'deno task check --probe bundle/ --images "incoming/*.jpg" --jsonl answers.jsonl',
    "find incoming -name '*.png' | deno task check --probe runs/store/tuned --run runs/tuned --images -",
  ],
  async run(settings, more) {
    try {
      await check(settings, more);
    } catch (thrown) {
      if (thrown instanceof InputError || thrown instanceof Interrupted || isRefusal(thrown)) throw thrown;
      // Any other fault would end in 1, which here means "flagged".
      throw new InputError(thrown instanceof Error ? thrown.stack ?? thrown.message : messageOf(thrown));
    }
  },
};

if (import.meta.main) await runTask(checkTask);
