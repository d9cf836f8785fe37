/**
 * A watermarked data set from a LLaVA or Qwen-VL file and its images: every image re-encoded, some marked, all recorded.
 * Refuses an output folder that holds something else, and stops at broken images unless told to leave them out.
 */
import { join } from "node:path";
import { imagesOf, readLlava, samplesToLlava } from "../core/data/llava.ts";
import { isQwen, readQwen } from "../core/data/qwen.ts";
import { InputError, Interrupted, messageOf } from "../core/errors.ts";

import { MANIFEST, readManifest, sha256, writeManifest } from "../core/formats/manifest.ts";
import { formatPeople } from "../core/privacy/people.ts";
import { DiskFolder } from "./folder.ts";
import { type FileRecord, type FileSettings, nameInFormat, type Outcome } from "./watermark_file.ts";
import { forEachImage } from "./watermark_pool.ts";

export interface WatermarkRun {
  /** The JSON file, LLaVA's or Qwen-VL's; what is written is LLaVA's. */
  data: string;
  /** The folder that its image paths start from. */
  images: string;
  out: string;
  /** The set's name and what people folder it is from, for the manifest. */
  set: string;
  parents: Record<string, string>;
  watermark: FileSettings["watermark"];
  plan: FileSettings["plan"];
  skipBroken: boolean;
  /** 0 for as many as the machine has cores. */
  workers: number;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

export interface WatermarkResult {
  records: FileRecord[];
  broken: { image: string; reason: string }[];
  /** The artifact's hash. */
  hash: string;
}

const RECORDS = "manifest.jsonl";
/** One line an image, appended as images are done; the name keeps it out of folder listings. */
const JOURNAL = "journal.jsonl.partial";

/**
 * Writes `images/`, `data.json` (with `person` on marked records), `people.jsonl`, `manifest.jsonl` and `manifest.json`.
 * Run again after a stop it goes on; the bytes depend on neither the number of workers nor the stops.
 * @throws InputError for bad data, broken images (all listed) or another artifact in `out`; Interrupted on the signal
 */
export async function watermarkFolder(run: WatermarkRun): Promise<WatermarkResult> {
  const { plan, watermark, set, skipBroken } = run;
  const folder = new DiskFolder(run.out);
  const dataText = await Deno.readTextFile(run.data).catch((error) => {
    throw new InputError(`Cannot read the data "${run.data}": ${messageOf(error)}`);
  });
  const { raw, names } = readData(dataText, run.data, plan.format);
  await checkFolders(run);
  const parents = {
    data: await sha256(dataText),
    people: await sha256(formatPeople(plan.people)),
    ...run.parents,
  };
  const { people: _, limits, ...settings } = plan;
  const config = { set, ...settings, ...limits, watermark };
  const identity = await sha256(JSON.stringify({ config, parents }));
  if (await folder.exists(MANIFEST)) return await readFinished(folder, identity);

  const earlier = await readJournal(folder, identity);
  const journal = await Deno.open(join(run.out, JOURNAL), { append: true });
  const outcomes = new Map<string, Outcome>();
  try {
    const fileSettings = { images: run.images, out: join(run.out, "images"), watermark, plan };
    await forEachImage(names, fileSettings, earlier, run, (name, outcome) => {
      outcomes.set(name, outcome);
      run.onProgress?.(outcomes.size, names.length);
      if ("record" in outcome && earlier.get(name)?.after !== outcome.record.after) {
        writeLine(journal, outcome.record);
      }
    });
  } finally {
    journal.close();
  }
  if (outcomes.size < names.length) {
    throw new Interrupted(
      `stopped after ${outcomes.size} of ${names.length} images; the same command goes on from here`,
    );
  }
  const broken: WatermarkResult["broken"] = [], records = new Map<string, FileRecord>();
  for (const name of names) {
    const outcome = outcomes.get(name)!;
    if ("record" in outcome) records.set(name, outcome.record);
    else broken.push({ image: name, reason: outcome.broken });
  }
  if (broken.length > 0 && !skipBroken) throw brokenError(broken, names.length);
  if (records.size === 0) {
    throw new InputError(`Cannot watermark "${run.images}": no image of it can be read`);
  }

  await folder.write("data.json", dataWith(raw, records));
  await folder.write("people.jsonl", formatPeople(plan.people));
  await folder.write(RECORDS, [...records.values()].map((record) => JSON.stringify(record) + "\n").join(""));
  const marked = [...records.values()].filter((record) => record.person !== null).length;
  const { hash } = await writeManifest(folder, {
    kind: "dataset",
    parents,
    seed: plan.seed,
    config: { ...config, skipBroken },
    // The images' own hashes are in manifest.jsonl, whose hash stands here: so the whole is still covered.
    facts: { identity, images: records.size, marked, broken },
    files: ["data.json", "people.jsonl", RECORDS],
  });
  await folder.remove(JOURNAL);
  return { records: [...records.values()], broken, hash };
}

type RawRecord = Record<string, unknown> & { image?: string | string[] };

/** The records as they are in the file, checked, and the names of their images, each once. */
function readData(text: string, name: string, format: WatermarkRun["plan"]["format"]) {
  let raw: RawRecord[];
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read the data "${name}": ${messageOf(error)}`);
  }
  if (isQwen(raw)) raw = samplesToLlava(readQwen(raw, name));
  const names = [...new Set(readLlava(raw, name).flatMap(imagesOf))];
  if (names.length === 0) throw new InputError(`Cannot watermark "${name}": no record has an "image"`);
  const owners = new Map<string, string>();
  for (const image of names) {
    const renamed = nameInFormat(image, format), owner = owners.get(renamed);
    if (owner) {
      throw new InputError(`Cannot write "${image}" as "${renamed}": "${owner}" becomes that as well`);
    }
    owners.set(renamed, image);
  }
  return { raw, names };
}

/** Makes the output folder. @throws InputError when the images would be written over themselves */
async function checkFolders({ images, out }: WatermarkRun): Promise<void> {
  const source = await Deno.realPath(images).catch(() => {
    throw new InputError(`Cannot open the images "${images}": no such folder`);
  });
  const target = join(out, "images");
  await Deno.mkdir(target, { recursive: true });
  if (await Deno.realPath(target) === source) {
    throw new InputError(
      `Cannot write to "${out}": its images are the ones to be read, choose another folder`,
    );
  }
}

async function readFinished(folder: DiskFolder, identity: string): Promise<WatermarkResult> {
  const { manifest, hash } = await readManifest(folder, "dataset");
  if (manifest.facts.identity !== identity) {
    throw new InputError(
      `Cannot write to "${folder.path}": it holds a data set made otherwise, choose another folder`,
    );
  }
  const lines = new TextDecoder().decode(await folder.read(RECORDS)).trimEnd().split("\n");
  const broken = manifest.facts.broken as WatermarkResult["broken"];
  return { records: lines.map((line) => JSON.parse(line)), broken, hash };
}

/** What an earlier run with the same identity has done; starts the journal where none has done anything. */
async function readJournal(folder: DiskFolder, identity: string): Promise<Map<string, FileRecord>> {
  const done = new Map<string, FileRecord>();
  const header = JSON.stringify({ identity });
  const text = await folder.exists(JOURNAL) ? new TextDecoder().decode(await folder.read(JOURNAL)) : "";
  const [first, ...lines] = text.split("\n");
  for (const line of lines) {
    try {
      const record: FileRecord = JSON.parse(line);
      done.set(record.source ?? record.image, record);
    } catch {
      // The last line of a run that was killed while it wrote: that image is simply done again.
    }
  }
  if (first === header) return done;
  if (done.size > 0) {
    throw new InputError(
      `Cannot go on in "${folder.path}": it was begun with other settings, choose another folder`,
    );
  }
  await folder.write(JOURNAL, header + "\n");
  return done;
}

/** A line break before and after: a line cut short by a kill cannot swallow the next one. */
function writeLine(journal: Deno.FsFile, record: FileRecord): void {
  journal.writeSync(new TextEncoder().encode(`\n${JSON.stringify(record)}\n`));
}

function dataWith(raw: readonly RawRecord[], records: Map<string, FileRecord>): string {
  const lines = raw.flatMap(({ person: _, ...record }) => {
    const marks = imagesOf(record).map((image) => records.get(image));
    if (marks.some((mark) => !mark)) return [];
    const images = marks.map((mark) => mark!.image), people = marks.map((mark) => mark!.person);
    const whole = Array.isArray(record.image), marked = people.some((person) => person !== null);
    return [{
      ...record,
      ...(images.length && { image: whole ? images : images[0] }),
      ...(marked && { person: whole ? people : people[0] }),
    }];
  });
  return `[\n${lines.map((record) => JSON.stringify(record)).join(",\n")}\n]\n`;
}

function brokenError(broken: WatermarkResult["broken"], total: number): InputError {
  const shown = broken.slice(0, 20).map(({ reason }) => `\n  ${reason}`).join("");
  const more = broken.length > 20 ? `\n  and ${broken.length - 20} more` : "";
  return new InputError(
    `Cannot use ${broken.length} of ${total} images (--skip-broken leaves them and their records out):${shown}${more}`,
  );
}
