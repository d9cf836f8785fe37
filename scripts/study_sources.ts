/**
 * The study's data sets on a disk, LLaVA records or easy-VQA: split by seed into pictures to tune on and pictures held
 * out, decoded when asked for. Refuses a picture that two records on both sides share, and one too small for a watermark.
 */
import { join } from "node:path";
import { readEasyVqa } from "../core/data/easy_vqa.ts";
import { toSample } from "../core/data/llava.ts";
import { checkImagePath } from "../core/data/paths.ts";
import { readSamples } from "../core/data/records.ts";
import type { Sample } from "../core/data/sample.ts";
import { InputError, messageOf } from "../core/errors.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { linesOf } from "../core/privacy/block.ts";
import type { Watermarker } from "../core/privacy/mark.ts";
import { Random } from "../core/random.ts";
import { type SourceItem, type StudyPeople, type StudySource } from "../core/study/arms.ts";
import type { StudyData } from "../core/study/config.ts";
import { syntheticSource } from "../core/study/synthetic_source.ts";
import { loadPicture } from "./dataset.ts";

/** Answers that the reading control ties to people. */
const ANSWERS = 16;
/** What of a picture's file stands for all of it in the data's hash. */
const HEAD = 1 << 16;

/** Opens a data set for one seed. @throws InputError naming the file and the record that cannot be used */
export async function openSource(data: StudyData, seed: number): Promise<StudySource> {
  if (data.kind === "synthetic") return syntheticSource(data.name, seed, data.images, data.heldOut);
  const { file, images, samples, text } = await readData(data);
  const { limit, testShare } = data, identity = await sha256(text);
  return await splitSource(data.name, samples, images, { seed, file, limit, testShare, identity });
}

interface DataFile {
  file: string;
  /** Folder that image paths start from. */
  images: string;
  samples: Sample[];
  text: string;
}

async function readData(data: Exclude<StudyData, { kind: "synthetic" }>): Promise<DataFile> {
  const file = data.kind === "llava" ? data.data : join(data.folder, "questions.json");
  const images = data.kind === "llava" ? data.images : data.folder;
  const text = await Deno.readTextFile(file).catch((error) => {
    throw new InputError(
      `Cannot open "${file}" of the data "${data.name}": ${
        error instanceof Deno.errors.NotFound ? "no such file" : messageOf(error)
      }`,
    );
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read "${file}": ${messageOf(error)}`);
  }
  const all = data.kind === "llava" ? readSamples(json, file) : readEasyVqa(json, file).map(toSample);
  // A record without a picture can carry no watermark.
  return { file, images, samples: all.filter((sample) => sample.images.length > 0), text };
}

interface Split {
  seed: number;
  file: string;
  /** Pictures that are used at all. */
  limit?: number;
  testShare: number;
  identity: string;
}

/** Splits samples by their first picture, so that no picture is on both sides. */
async function splitSource(
  name: string,
  all: Sample[],
  folder: string,
  { seed, file, limit, testShare, identity }: Split,
): Promise<StudySource> {
  const groups = Map.groupBy(all, ({ images }) => images[0]);
  const order = new Random(seed, "study/split").shuffle([...groups.keys()]).slice(0, limit);
  const wanted = Math.round(order.length * testShare);
  if (order.length < 2 || wanted === 0 || wanted === order.length) {
    throw new InputError(
      `Cannot split "${file}": it has ${order.length} pictures, ${wanted} of them would be held out`,
    );
  }
  const heldOut = order.slice(0, wanted).map((image) => groups.get(image)![0]);
  const training = order.slice(wanted).flatMap((image) => groups.get(image)!);
  const shared = new Set(training.flatMap(({ images }) => images));
  const both = heldOut.find(({ images }) => images.some((image) => shared.has(image)));
  if (both) {
    throw new InputError(`Cannot split "${file}": record "${both.id}" shares a picture with one to tune on`);
  }
  const item = async (sample: Sample): Promise<SourceItem> => ({
    id: sample.id,
    turns: sample.turns,
    pictures: await Promise.all(
      sample.images.map((image) => loadPicture(folder, image, `record "${sample.id}"`)),
    ),
  });
  return {
    name,
    hash: await sha256(
      JSON.stringify([identity, seed, testShare, await picturesHash([...heldOut, ...training], folder)]),
    ),
    count: training.length,
    item: (index) => item(training[index % training.length]),
    heldOutCount: heldOut.length,
    heldOut: (index) => item(heldOut[index % heldOut.length]),
    answers: frequentAnswers(training),
  };
}

/** Most frequent first; of equally frequent ones the alphabet's first. */
function frequentAnswers(samples: readonly Sample[]): string[] {
  const counts = new Map<string, number>();
  for (const { answer } of samples.flatMap(({ turns }) => turns)) {
    counts.set(answer, (counts.get(answer) ?? 0) + 1);
  }
  return [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)).slice(0, ANSWERS).map(([a]) => a);
}

/** Of every picture's path, size and first bytes: reading all of them would take as long as training does. */
async function picturesHash(samples: readonly Sample[], folder: string): Promise<string> {
  const lines: string[] = [];
  for (const image of [...new Set(samples.flatMap(({ images }) => images))].sort()) {
    const path = join(folder, checkImagePath(image, `the data's picture "${image}"`));
    const file = await Deno.open(path).catch((error) => {
      throw new InputError(
        `Cannot open "${path}": ${error instanceof Deno.errors.NotFound ? "no such file" : messageOf(error)}`,
      );
    });
    const { size } = await file.stat(), head = new Uint8Array(Math.min(size, HEAD));
    for (let done = 0; done < head.length;) {
      const n = await file.read(head.subarray(done));
      if (n === null) break;
      done += n;
    }
    file.close();
    lines.push(`${image} ${size} ${await sha256(head)}`);
  }
  return await sha256(lines.join("\n"));
}

/**
 * The source with a check of every picture that is asked for: the largest watermark of the study's people fits.
 * Items past the source's end start again, held-out ones do not: `heldOut` must have as many as are probed.
 */
export function fittingSource(
  source: StudySource,
  watermarker: Watermarker,
  people: StudyPeople,
): StudySource {
  const blocks = [...people.U0, ...people.U1, ...people.U2].map((person) => watermarker.block(person));
  const width = Math.max(...blocks.map((block) => block.width));
  const height = Math.max(...blocks.map((block) => block.height));
  const checked = (item: SourceItem): SourceItem => {
    const small = item.pictures.find((picture) => picture.width < width || picture.height < height);
    if (small) {
      throw new InputError(
        `Cannot watermark record "${item.id}" of "${source.name}": its picture is ${small.width}x${small.height}, a person's lines take ${width}x${height} (${
          linesOf(people.U1[0], watermarker.options.content).length
        } lines); leave it out, or choose smaller text`,
      );
    }
    return item;
  };
  return {
    ...source,
    item: async (index) => checked(await source.item(index)),
    heldOut: async (index) => checked(await source.heldOut(index)),
  };
}
