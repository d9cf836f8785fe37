/**
 * Many images in one request, their answers streamed as NDJSON in the order in which the images came.
 * An image that is refused spoils its own line alone; a body that cannot be read further ends with one last line.
 */
import { issueOf, messageOf } from "../core/errors.ts";
import { MULTIPART } from "./body.ts";
import { bodyLines, expectType, formParts } from "./parts.ts";
import { Problem } from "./problems.ts";
import { batchItemSchema, type BatchLine, type Score } from "./schemas.ts";

export const NDJSON = "application/x-ndjson";

export interface BatchLimits {
  /** Of one image. */
  bodyBytes: number;
  bodyMs: number;
  batchBytes: number;
  batchImages: number;
}

interface Item {
  name: string | null;
  image: () => Uint8Array<ArrayBuffer>;
}

/** A part may be so many times larger than an image may be before the whole batch ends. */
const PART_SLACK = 4;

/** The images as they arrive. @throws Problem when the body cannot be read further */
async function* items(request: Request, type: string, limits: BatchLimits): AsyncGenerator<Item> {
  const { bodyBytes, batchBytes: totalBytes, bodyMs: idleMs, batchImages } = limits;
  if (type === MULTIPART) {
    const bounds = { totalBytes, idleMs, partBytes: PART_SLACK * bodyBytes, parts: batchImages + 1 };
    for await (const { filename, field, bytes } of formParts(request, bounds)) {
      yield { name: (filename ?? field).slice(0, 200), image: () => sized(bytes, bodyBytes) };
    }
    return;
  }
  for await (
    const line of bodyLines(request, { totalBytes, idleMs, lineBytes: Math.ceil(bodyBytes / 3) * 4 + 2000 })
  ) {
    if (line?.every((byte) => byte <= 32)) continue;
    yield line ? fromLine(line, bodyBytes) : { name: null, image: () => sized(undefined, bodyBytes) };
  }
}

function sized(bytes: Uint8Array<ArrayBuffer> | undefined, limit: number): Uint8Array<ArrayBuffer> {
  if (!bytes || bytes.length > limit) {
    throw new Problem("body-too-large", `The image has more than ${limit} bytes`);
  }
  if (bytes.length === 0) throw new Problem("body-empty", "It has no bytes, expected an image");
  return bytes;
}

function fromLine(line: Uint8Array, limit: number): Item {
  let name: string | null = null;
  try {
    const parsed = batchItemSchema.safeParse(JSON.parse(new TextDecoder().decode(line)));
    if (!parsed.success) throw new Error(issueOf(parsed.error));
    name = parsed.data.name ?? null;
    const text = atob(parsed.data.image);
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    return { name, image: () => sized(bytes, limit) };
  } catch (thrown) {
    const problem = new Problem("json-invalid", `The line cannot be used: ${messageOf(thrown)}`);
    return {
      name,
      image: () => {
        throw problem;
      },
    };
  }
}

export interface BatchOptions {
  limits: BatchLimits;
  /** Images worked on at once. */
  width: number;
  score: (bytes: Uint8Array<ArrayBuffer>) => Promise<Score>;
  /** The problem document of whatever was thrown. */
  describe: (thrown: unknown) => NonNullable<BatchLine["problem"]>;
  signal: AbortSignal;
  done: () => void;
}

/** The answer's body. @throws Problem where the first image cannot be reached: then there is nothing to stream */
export async function answerBatch(
  request: Request,
  options: BatchOptions,
): Promise<ReadableStream<Uint8Array>> {
  const { limits, width, score, describe, signal, done } = options;
  const type = expectType(request, [MULTIPART, NDJSON]);
  const encoder = new TextEncoder(), images = items(request, type, limits);
  let next = await images.next();
  if (next.done) throw new Problem("body-empty", "The batch has no images");
  return new ReadableStream({
    // Lines are queued whether or not they are read: a client that sends everything before it reads would wait for ever.
    async start(controller) {
      const write = (line: BatchLine) => controller.enqueue(encoder.encode(JSON.stringify(line) + "\n"));
      const under: Promise<BatchLine>[] = [];
      let index = 0;
      const answer = async (at: number, { name, image }: Item): Promise<BatchLine> => {
        try {
          return { index: at, name, score: await score(image()) };
        } catch (thrown) {
          return { index: at, name, problem: describe(thrown) };
        }
      };
      try {
        try {
          for (; !next.done; next = await images.next()) {
            signal.throwIfAborted();
            if (index === limits.batchImages) {
              throw new Problem("batch-too-long", `A batch has at most ${limits.batchImages} images`);
            }
            under.push(answer(index++, next.value));
            if (under.length >= width) write(await under.shift()!);
          }
          for (const line of under) write(await line);
        } catch (thrown) {
          for (const line of under) write(await line);
          write({ index, name: null, problem: describe(thrown) });
        }
        controller.close();
      } catch {
        // The client went away: nobody reads what is left.
      } finally {
        done();
      }
    },
  });
}
