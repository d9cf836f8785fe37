/**
 * Thousands of hostile images against `deno task serve` in a process of its own, by hand since it takes minutes:
 * `deno run -A tests/by_hand/hostile.ts [count] [seed]`. It fails at the first 5xx, 2 s or 512 MB.
 */
import assert from "node:assert/strict";
import { problemSchema, scoreSchema } from "../../functions/schemas.ts";
import { hostileImages } from "../hostile_images.ts";

const COUNT = Number(Deno.args[0] ?? 2500), SEED = Number(Deno.args[1] ?? 1), SIDE_BY_SIDE = 2;
const ROOT = new URL("../..", import.meta.url).pathname;

const images = await hostileImages(SEED, COUNT);
const server = new Deno.Command(Deno.execPath(), {
  args: ["run", "-A", "scripts/serve.ts", "--port", "8899"],
  cwd: ROOT,
  stdout: "null",
  stderr: "inherit",
}).spawn();
const url = "http://127.0.0.1:8899";

/** Resident megabytes of the server now, and the most it ever had. */
async function memory(): Promise<{ now: number; most: number }> {
  const status = await Deno.readTextFile(`/proc/${server.pid}/status`);
  const read = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)![1]) / 1000;
  return { now: read("VmRSS"), most: read("VmHWM") };
}

interface Answer {
  name: string;
  status: number;
  type: string;
  ms: number;
}

async function ask(address: string, { name, type, bytes }: (typeof images)[number]): Promise<Answer> {
  const start = performance.now();
  const response = await fetch(address, { method: "POST", body: bytes, headers: { "content-type": type } });
  const body = await response.json(), ms = performance.now() - start, { status } = response;
  assert(status === 200 || (status >= 400 && status < 500), `${name}: ${status} ${JSON.stringify(body)}`);
  assert(ms < 2000, `${name}: ${ms} ms`);
  const outcome = status === 200 ? "scored" : problemSchema.parse(body).type;
  if (status === 200) scoreSchema.parse(body);
  return { name, status, type: outcome, ms };
}

try {
  while (
    !await fetch(`${url}/readyz`).then((answer) => answer.body!.cancel().then(() => answer.ok), () => false)
  ) {
    await new Promise((wake) => setTimeout(wake, 100));
  }
  const { probes: [{ id }] } = await (await fetch(`${url}/v1/probes`)).json();
  const before = await memory(), answers: Answer[] = [], left = [...images];
  const work = async () => {
    for (let next = left.pop(); next; next = left.pop()) {
      answers.push(await ask(`${url}/v1/probes/${id}/score`, next));
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work));
  const after = await memory(), slowest = answers.reduce((a, b) => a.ms > b.ms ? a : b);
  assert(after.most < 512, `the process had ${after.most} MB`);
  const counts = Map.groupBy(answers, ({ type }) => type);
  for (const [type, of] of [...counts].sort()) console.log(`${String(of.length).padStart(6)}  ${type}`);
  console.log(`${answers.length} images; slowest ${Math.round(slowest.ms)} ms (${slowest.name})`);
  console.log(`memory ${before.now} MB before, ${after.now} MB after, ${after.most} MB at most`);
} finally {
  server.kill("SIGTERM");
  await server.status;
}
