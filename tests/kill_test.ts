/**
 * `scripts/train.ts` killed with SIGKILL at random moments and started again: the files of the finished run are the
 * same bytes as those of a run that nobody disturbed.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { samplesToLlava } from "../core/data/llava.ts";
import { syntheticItem } from "../core/data/synthetic.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { Random } from "../core/random.ts";
import { DiskFolder, writeFile } from "../scripts/folder.ts";
import { smallCheckpoint } from "./tiny_model.ts";

const STEPS = 30, RESULTS = ["state.safetensors", "metrics.jsonl", "adapter/adapter_model.safetensors"];
const SCRIPT = new URL("../scripts/train.ts", import.meta.url).pathname;

/** A data set of six drawn scenes and the small checkpoint, on the disk. */
async function prepare(folder: string): Promise<void> {
  const random = new Random(11, "scenes"),
    items = [0, 1, 2, 3, 4, 5].map((i) => syntheticItem(random, i, ["count"], 2));
  for (const { picture, sample } of items) {
    await writeFile(join(folder, sample.images[0]), await encodeImage(picture, "png"));
  }
  await writeFile(
    join(folder, "data.json"),
    JSON.stringify(samplesToLlava(items.map(({ sample }) => sample))),
  );
  const checkpoint = await smallCheckpoint(), model = new DiskFolder(join(folder, "model"));
  for (const name of await checkpoint.list()) await model.write(name, await checkpoint.read(name));
}

function start(folder: string, out: string): Deno.ChildProcess {
  const flags = {
    model: join(folder, "model"),
    data: join(folder, "data.json"),
    images: folder,
    out: join(folder, out),
    steps: STEPS,
    "batch-size": 2,
    "save-every": 2,
    "lora-dropout": 0.1,
    trainable: "multi_modal_projector",
  };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", SCRIPT, ...args],
    stdout: "null",
    stderr: "null",
  })
    .spawn();
}

const stepsOf = async (out: string) =>
  await Deno.readTextFile(join(out, "metrics.jsonl")).then((text) => text.trim().split("\n").length, () => 0);

/** Kills the run a random while after it saved something new. Resolves to the steps that were saved by then. */
async function killOnce(folder: string, out: string, random: Random): Promise<number> {
  const run = start(folder, out), before = await stepsOf(join(folder, out));
  const ended = { yet: false };
  const status = run.status.finally(() => ended.yet = true);
  while (!ended.yet && await stepsOf(join(folder, out)) <= before) {
    await new Promise((done) => setTimeout(done, 5));
  }
  await new Promise((done) => setTimeout(done, random.int(250)));
  if (!ended.yet) run.kill("SIGKILL");
  await status;
  return await stepsOf(join(folder, out));
}

Deno.test("a training run killed three times ends in the same bytes", async () => {
  const folder = await Deno.makeTempDir({ prefix: "afterimage-kill-" });
  try {
    await prepare(folder);
    const random = new Random(1, "kill"), saved: number[] = [];
    const undisturbed = start(folder, "whole");
    for (let i = 0; i < 3; i++) saved.push(await killOnce(folder, "killed", random));
    assert((await undisturbed.status).success, "the undisturbed run failed");
    assert((await start(folder, "killed").status).success, "the resumed run failed");
    assert(saved[0] < STEPS, `the first kill came after the end: ${saved}`);
    for (const name of RESULTS) {
      const [ours, theirs] = await Promise.all(
        ["killed", "whole"].map((out) => Deno.readFile(join(folder, out, name))),
      );
      assert.deepEqual(ours, theirs, `${name}, killed after ${saved.join(", ")} saved steps`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
