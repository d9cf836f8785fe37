/**
 * Thousands of hostile images, requests and connections against `deno task serve` in a process of its own, by hand since
 * it takes minutes: `deno run -A tests/by_hand/hostile.ts [count] [seed]`, on Linux. It fails at the first 5xx, 2 s or 512 MB.
 */
import assert from "node:assert/strict";
import { loadavg } from "node:os";
import { startService } from "../../scripts/service_process.ts";
import { type Answer, askBytes, askEndlessly, askOne, askSlowly, clock } from "../hostile_ask.ts";
import { hostileImages } from "../hostile_images.ts";
import { hostileBytes, hostileRequests } from "../hostile_requests.ts";

const COUNT = Number(Deno.args[0] ?? 2500), SEED = Number(Deno.args[1] ?? 1), SIDE_BY_SIDE = 2;
const ROOT = new URL("../..", import.meta.url).pathname;
/** A body must be whole within 30 s. */
const ENDLESS_MS = 33_000;

const images = await hostileImages(SEED, COUNT);
const good = await Deno.readFile(`${ROOT}tests/fixtures/images/rgb.png`);
const { url, child: server, stop } = await startService([], "piped");

/** The service's own process, which the task's started. */
const processId = (): string =>
  Deno.readTextFileSync(`/proc/${server.pid}/task/${server.pid}/children`).trim() || `${server.pid}`;

/** Lines of the log that tell of an error inside. */
const faults: string[] = [];
async function readLog(): Promise<void> {
  let rest = "";
  for await (const text of server.stdout.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    faults.push(...lines.filter((line) => line.includes('"level":"error"')));
  }
}

/** Resident megabytes of the server now, and the most it ever had. */
async function memory(): Promise<{ now: number; most: number }> {
  const status = await Deno.readTextFile(`/proc/${processId()}/status`);
  const read = (name: string) => Math.round(Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)![1]) / 1000);
  return { now: read("VmRSS"), most: read("VmHWM") };
}

/** Milliseconds of processor time that the server has used; the kernel counts hundredths of a second. */
function worked(): number {
  const fields = Deno.readTextFileSync(`/proc/${processId()}/stat`).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** The clock or the server's work, whichever is less: on a busy machine other programs stretch the clock. */
function watch(): () => number {
  const elapsed = clock(), before = worked();
  return () => Math.min(elapsed(), worked() - before);
}

const answers: (Answer & { clockMs: number })[] = [];
/** Everything of a list, so many side by side. */
async function each<T>(list: readonly T[], width: number, ask: (item: T) => Promise<Answer>): Promise<void> {
  const left = [...list];
  const work = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const elapsed = clock();
      answers.push({ ...await ask(next), clockMs: elapsed() });
    }
  };
  await Promise.all(Array.from({ length: width }, work));
}

async function tell(what: string): Promise<void> {
  const held = await memory(), slowest = answers.reduce((a, b) => a.ms > b.ms ? a : b);
  const byClock = answers.map(({ clockMs }) => clockMs).sort((a, b) => a - b);
  const [p50, p99, most] = [0.5, 0.99, 1].map((share) =>
    Math.round(byClock[Math.ceil(byClock.length * share) - 1])
  );
  console.log(`${answers.length} ${what}`);
  for (const [outcome, of] of [...Map.groupBy(answers, (answer) => answer.outcome)].sort()) {
    console.log(`${String(of.length).padStart(6)}  ${outcome}`);
  }
  console.log(
    `slowest ${
      Math.round(slowest.ms)
    } ms (${slowest.name}); by the clock p50 ${p50}, p99 ${p99}, most ${most}`,
  );
  console.log(`${held.now} MB now, ${held.most} at most; load ${loadavg()[0].toFixed(1)}\n`);
  answers.length = 0;
}

const logging = readLog();
try {
  const path = "/v1/probes/example/score", address = url + path;
  const before = await memory();
  const first = { name: "the first", type: "image/png", body: good };
  await each([first], 1, (request) => askOne(address, request, watch));
  await tell("good picture, which opens the model");
  const asked = images.map(({ name, type, bytes: body }) => ({ name, type, body }));
  await each(asked, SIDE_BY_SIDE, (request) => askOne(address, request, watch));
  await tell("images");
  const forms = await hostileRequests(good);
  await each(forms, SIDE_BY_SIDE, (request) => askOne(address, request, watch));
  await tell("wrong forms, encodings and types");
  await each(hostileBytes(path, good), SIDE_BY_SIDE, (bytes) => askBytes(url, bytes));
  await tell("broken connections");
  const endless = each([...Array(10).keys()], 10, () => askEndlessly(address, 500, ENDLESS_MS));
  await each([...Array(40).keys()], 40, () => askSlowly(address, good, { pieces: 50, overMs: 5000 }));
  await tell("slow uploads at once, timed from their last byte");
  await endless;
  await tell("uploads without an end");
  const after = await memory();
  console.log(`memory ${before.now} MB before, ${after.now} MB after, ${after.most} MB at most`);
  assert(after.most < 512, `the process had ${after.most} MB`);
  assert.deepEqual(faults, []);
} finally {
  await stop();
  await logging;
}
