/**
 * Many images over few requests: groups go side by side, their lines come back in order, as they arrive.
 * It refuses no image: one that the service does not take becomes a line with its problem and spoils no other.
 */
import { ServiceError } from "./client_error.ts";
import { mayPass } from "./retry.ts";
import { type BatchLine, batchLineSchema, type ProblemDocument, type Score } from "./schemas.ts";

/** An encoded PNG, JPEG or WebP; its bytes tell which. */
export type ImageBytes = Uint8Array<ArrayBuffer> | Blob;
export interface NamedImage {
  /** Given back with the answer. */
  name?: string;
  image: ImageBytes;
}

/** An image on its way, and the promise of its line. */
interface Slot extends NamedImage {
  index: number;
  line: PromiseWithResolvers<BatchLine>;
}

/** How the client talks to the service. */
export interface BatchCalls {
  /** Posts these images; `read` is given the answer's lines as they come. Retries whatever may pass. */
  post(images: NamedImage[], read: (line: BatchLine) => void, signal: AbortSignal): Promise<void>;
  score(image: ImageBytes, signal: AbortSignal): Promise<Score>;
}

export interface BatchLimits {
  /** Most images and bytes of one request. */
  images: number;
  bytes: number;
  /** Requests side by side. */
  width: number;
  signal?: AbortSignal;
}

/** One line an image, in the order of the images. @throws ServiceError when the service cannot be asked at all */
export async function* batchLines(
  images: Iterable<NamedImage> | AsyncIterable<NamedImage>,
  limits: BatchLimits,
  calls: BatchCalls,
): AsyncGenerator<BatchLine, void> {
  const stop = new AbortController(); // whoever stops reading stops what is under way
  const signal = limits.signal ? AbortSignal.any([limits.signal, stop.signal]) : stop.signal;
  const groups: Slot[][] = [];
  async function* lines(group: Slot[]): AsyncGenerator<BatchLine, void> {
    for (const { line } of group) yield await line.promise;
  }
  try {
    for await (const group of grouped(images, limits)) {
      void sendGroup(group, calls, signal);
      groups.push(group);
      if (groups.length === limits.width) yield* lines(groups.shift()!);
    }
    for (const group of groups) yield* lines(group);
  } finally {
    stop.abort();
  }
}

async function* grouped(
  images: Iterable<NamedImage> | AsyncIterable<NamedImage>,
  limits: BatchLimits,
): AsyncGenerator<Slot[], void> {
  let group: Slot[] = [], bytes = 0, index = 0;
  for await (const { name, image } of images) {
    const size = image instanceof Blob ? image.size : image.length;
    if (group.length > 0 && (group.length === limits.images || bytes + size > limits.bytes)) {
      yield group;
      [group, bytes] = [[], 0];
    }
    const line = deferred<BatchLine>();
    line.promise.catch(() => {}); // a group that fails as a whole is told once, by its first line
    group.push({ name, image, index: index++, line });
    bytes += size;
  }
  if (group.length > 0) yield group;
}

/** What Promise.withResolvers gives, which Node 20 does not have. */
function deferred<T>(): PromiseWithResolvers<T> {
  let resolve!: PromiseWithResolvers<T>["resolve"], reject!: PromiseWithResolvers<T>["reject"];
  const promise = new Promise<T>((yes, no) => [resolve, reject] = [yes, no]);
  return { promise, resolve, reject };
}

/** Settles every slot of the group; never rejects. */
async function sendGroup(group: Slot[], calls: BatchCalls, signal: AbortSignal): Promise<void> {
  let left = group;
  const settle = (slot: Slot, answer: { score?: Score; problem?: ProblemDocument }) => {
    slot.line.resolve({ index: slot.index, name: slot.name ?? null, ...answer });
    left = left.filter((other) => other !== slot);
  };
  try {
    const sent = left;
    await calls.post(sent, ({ index, score, problem }) => {
      const slot = sent[index];
      // What may pass is asked again below, alone, with the client's own patience.
      if (slot && !(problem && mayPass(problem.status))) settle(slot, { score, problem });
    }, signal);
  } catch (thrown) {
    // A whole request refused may be one image's fault; one that failed on its way may have been answered in part.
    const alone = thrown instanceof ServiceError && (thrown.passing || [413, 422].includes(thrown.status));
    if (!alone) return left.forEach(({ line }) => line.reject(thrown));
  }
  for (const slot of [...left]) {
    try {
      settle(slot, { score: await calls.score(slot.image, signal) });
    } catch (thrown) {
      const problem = thrown instanceof ServiceError ? thrown.problem : undefined;
      if (!problem || isAboutTheCaller(problem.status)) {
        return left.forEach(({ line }) => line.reject(thrown));
      }
      settle(slot, { problem });
    }
  }
}

/** Keys and addresses are wrong for every image. */
const isAboutTheCaller = (status: number): boolean => [401, 403, 404, 405].includes(status);

/** Calls `take` for each line of an NDJSON answer as it arrives. @throws ServiceError for a line of another form */
export async function readLines(answer: Response, take: (line: BatchLine) => void): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  const parse = (line: string) => {
    if (line.trim() === "") return;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      // Cut off on its way.
      throw new ServiceError("Cannot read the answer: a line is no JSON", {
        status: 0,
        passing: true,
        cause,
      });
    }
    const parsed = batchLineSchema.safeParse(value);
    if (!parsed.success) {
      const { path, message } = parsed.error.issues[0];
      const what = `Cannot read the answer: field "${path.join(".")}": ${message}`;
      throw new ServiceError(what, { status: answer.status, passing: false });
    }
    take(parsed.data);
  };
  const reader = answer.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    text += decoder.decode(value, { stream: !done });
    const lines = text.split("\n");
    text = done ? "" : lines.pop()!;
    lines.forEach(parse);
    if (done) return;
  }
}
