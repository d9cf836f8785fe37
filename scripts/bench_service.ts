/**
 * `deno task bench --only service`: one image's way through the service beside its bare cost, and many requests at once.
 * It refuses to report a run in which a request failed.
 */
import { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { decodeImage, encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { createProcessor } from "../core/image/processors.ts";
import { loadBundle } from "../core/probe/bundle.ts";
import type { OnnxSpec } from "../core/onnx/spec.ts";
import { Random } from "../core/random.ts";
import { httpMessage, openSocket } from "./bench_socket.ts";
import { DiskFolder } from "./folder.ts";
import { startService } from "./service_process.ts";

const BUNDLE = new URL("../models/example_bundle", import.meta.url).pathname;
const BLOCKS = 12, BLOCK = 50, WARM = 4000, MANY = 5000, CONNECTIONS = 32;
/** The size of the example's own pictures, and that of a photograph in a usual data set. */
const SIZES = [[64, 64], [640, 480]] as const;

/** One picture's way, in milliseconds: the half of all requests that is faster. */
export interface PictureTimes {
  size: string;
  bytes: number;
  scoreP50: number;
  bareP50: number;
  ratio: number;
}

export interface ServiceBench {
  pictures: PictureTimes[];
  /** Milliseconds of a request that does nothing: what HTTP itself costs here. */
  emptyP50: number;
  requests: number;
  connections: number;
  perSecond: number;
  /** Requests by status. */
  statuses: Record<string, number>;
  /** MB of the service: after the warm-up, at the most, and after the last request. */
  rss: { warm: number; most: number; after: number };
}

/** A JPEG with the slopes and the grain of a photograph, so that decoding costs what it does. */
async function samplePicture(width: number, height: number): Promise<Uint8Array<ArrayBuffer>> {
  const picture = blankPicture(width, height), random = new Random(0, "bench picture");
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        const slope = Math.sin(x / 17 + channel) * Math.cos(y / 23 - channel);
        picture.data[at++] = 128 + 80 * slope + 30 * (random.float() - 0.5);
      }
    }
  }
  return await encodeImage(picture, "jpeg");
}

/** Decoding, pixel values and the model alone, in this process: what nobody can do without. */
async function bareRun(image: Uint8Array<ArrayBuffer>): Promise<() => Promise<void>> {
  const folder = new DiskFolder(BUNDLE),
    { encoder, probe } = await loadBundle(folder),
    spec = encoder as OnnxSpec;
  const json = JSON.parse(new TextDecoder().decode(await folder.read(spec.input.processor)));
  const processor = createProcessor(json, spec.input.processor);
  const session = await InferenceSession.create(await folder.read(spec.file));
  const features = probe.layers.map(({ feature }) => feature);
  return async () => {
    const { pixelValues, shape } = processor.process(await decodeImage(image));
    await session.run({ [spec.input.name]: new Tensor("float32", pixelValues, shape) }, features);
  };
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function timed(run: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

async function residentMb(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\d+)/m.exec(text)![1]) / 1e6;
}

/** Measures it all; takes two minutes. @throws Error when a single request is not answered with 200 */
export async function benchService(): Promise<ServiceBench> {
  const { url, stop } = await startService(["--store", BUNDLE]), socket = await openSocket(url);
  try {
    const { host } = new URL(url), path = "/v1/probes/example/score";
    const empty = httpMessage("GET", "/healthz", { host });
    const ask = async (message: Uint8Array) => {
      const status = await socket.ask(message);
      if (status !== 200) throw new Error(`Cannot measure: the service answered ${status}`);
    };
    const pictures: PictureTimes[] = [], emptyTimes: number[] = [];
    const images = await Promise.all(SIZES.map(([width, height]) => samplePicture(width, height)));
    for (const [k, image] of images.entries()) {
      const bare = await bareRun(image), size = SIZES[k].join(" x ");
      const message = httpMessage("POST", path, { host, type: "image/jpeg", body: image });
      for (let n = 0; n < BLOCK; n++) await bare().then(() => ask(message));
      const cases = [() => ask(message), bare, () => ask(empty)];
      const times: number[][] = [[], [], emptyTimes];
      // In turns, so that all see the same machine; in blocks, so that none finds the other's data in the cache.
      for (let block = 0; block < BLOCKS; block++) {
        for (const [which, run] of cases.entries()) {
          for (let n = 0; n < BLOCK; n++) times[which].push(await timed(run));
        }
      }
      const [scoreP50, bareP50] = times.map(median);
      pictures.push({ size, bytes: image.length, scoreP50, bareP50, ratio: scoreP50 / bareP50 });
    }
    return { pictures, emptyP50: median(emptyTimes), ...await load(url, path, images[0]) };
  } finally {
    socket.close();
    await stop();
  }
}

/** Many requests at once, through the same `fetch` that a client would use. */
async function load(url: string, path: string, image: Uint8Array<ArrayBuffer>) {
  const statuses: Record<string, number> = {}, headers = { "content-type": "image/jpeg" };
  const run = async (requests: number) => {
    let left = requests, most = 0;
    const client = async () => {
      while (left-- > 0) {
        const response = await fetch(url + path, { method: "POST", body: image, headers });
        await response.arrayBuffer();
        statuses[response.status] = (statuses[response.status] ?? 0) + 1;
        if (left % 500 === 0) most = Math.max(most, await residentMb(url));
      }
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, client));
    return most;
  };
  await run(WARM);
  const warm = await residentMb(url), start = performance.now();
  const most = await run(MANY), seconds = (performance.now() - start) / 1000;
  const after = await residentMb(url), rss = { warm, most: Math.max(most, after), after };
  return { requests: WARM + MANY, connections: CONNECTIONS, perSecond: MANY / seconds, statuses, rss };
}

/** The result in words. */
export function serviceText({ pictures, emptyP50, rss, ...many }: ServiceBench): string {
  const ms = (value: number) => `${value.toFixed(2)} ms`, mb = (value: number) => `${value.toFixed(0)} MB`;
  const statuses = Object.entries(many.statuses).map(([status, n]) => `${n} x ${status}`).join(", ");
  return [
    ...pictures.map(({ size, bytes, scoreP50, bareP50, ratio }) =>
      `JPEG of ${size}, ${(bytes / 1000).toFixed(0)} kB: ${ms(scoreP50)} through /score, ${ms(bareP50)} ` +
      `bare (decoding, pixel values, the model): ${ratio.toFixed(2)} x`
    ),
    `a request that does nothing: ${ms(emptyP50)}`,
    `${many.requests} requests at ${many.connections} connections: ${
      many.perSecond.toFixed(0)
    } a second, ${statuses}`,
    `memory of the service: ${mb(rss.warm)} warm, ${mb(rss.most)} at the most, ${mb(rss.after)} after`,
  ].join("\n");
}
