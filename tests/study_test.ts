/**
 * `deno task study` from outside: killed with SIGKILL at random moments and started again, split over two machines and
 * merged. Cells and report are the same each time but for times.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Random } from "../core/random.ts";
import { MANIFEST } from "../core/formats/manifest.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { TIMES } from "../scripts/study_cell.ts";

const SCRIPT = new URL("../scripts/study.ts", import.meta.url).pathname;
const STUDY = {
  preset: "tiny",
  name: "small",
  seeds: [100],
  arms: ["r0", "r100"],
  models: [{ name: "builtin-tiny", train: { images: 6, steps: 12 } }],
  data: [{ kind: "synthetic", name: "shapes", images: 6, heldOut: 2 }],
  batchSizes: [2],
  people: 4,
  probe: { scenes: 4, partitions: 2, draws: 9, controlTasks: 2 },
  gradients: null,
  says: null,
};

async function withFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "afterimage-study-" });
  try {
    await Deno.writeTextFile(join(folder, "study.json"), JSON.stringify(STUDY));
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function start(folder: string, out: string, ...flags: string[]): Deno.ChildProcess {
  const common = ["--config", join(folder, "study.json"), "--out", join(folder, out)];
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", SCRIPT, ...common, "--gflops", "10", ...flags],
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

async function finish(run: Deno.ChildProcess): Promise<string> {
  const { success, stderr } = await run.output(), text = new TextDecoder().decode(stderr);
  assert(success, text);
  return text;
}

/** Every file of every finished cell, but for times. */
async function cellsOf(folder: string, out: string): Promise<Map<string, Uint8Array>> {
  const cells = new DiskFolder(join(folder, out, "cells")), names = await cells.list();
  const done = new Set(
    names.filter((name) => name.endsWith(`/${MANIFEST}`)).map((name) => name.split("/")[0]),
  );
  const files = new Map<string, Uint8Array>();
  for (const name of names) {
    const [cell, ...rest] = name.split("/");
    if (done.has(cell) && rest.at(-1) !== TIMES) files.set(name, await cells.read(name));
  }
  return files;
}

function assertSame(ours: Map<string, Uint8Array>, theirs: Map<string, Uint8Array>): void {
  assert.deepEqual([...ours.keys()], [...theirs.keys()]);
  for (const [name, bytes] of ours) assert.deepEqual(bytes, theirs.get(name), `${name} differs`);
}

/** report.json without what may differ. */
async function reportOf(folder: string, out: string): Promise<unknown> {
  const { times, ...report } = JSON.parse(await Deno.readTextFile(join(folder, out, "report.json")));
  assert(times.adapters.length > 0, JSON.stringify(times));
  return report;
}

/** Kills the run when it has written something new and a random while has gone by. Resolves to whether it was alive. */
async function killOnce(folder: string, out: string, random: Random): Promise<boolean> {
  const run = start(folder, out), cells = new DiskFolder(join(folder, out, "cells"));
  const before = (await cells.list()).length, ended = { yet: false };
  const output = run.output().finally(() => ended.yet = true);
  while (!ended.yet && (await cells.list()).length <= before) {
    await new Promise((done) => setTimeout(done, 10));
  }
  await new Promise((done) => setTimeout(done, random.int(1000)));
  const wasAlive = !ended.yet;
  if (wasAlive) run.kill("SIGKILL");
  await output;
  return wasAlive;
}

Deno.test("a study killed at random, one in two parts and one run at once have the same cells", () =>
  withFolder(async (folder) => {
    const random = new Random(3, "kill"), killed: boolean[] = [];
    await finish(start(folder, "whole"));
    for (let i = 0; i < 3; i++) killed.push(await killOnce(folder, "killed", random));
    await finish(start(folder, "killed"));
    assert(killed[0], "the first kill came after the end");
    const whole = await cellsOf(folder, "whole");
    // Tuning, activations and a probe of each arm, done and nothing left to go on from.
    assert.equal([...whole.keys()].filter((name) => name.split("/")[1] === MANIFEST).length, 6);
    assert(![...whole.keys()].some((name) => name.endsWith("state.safetensors")));
    assertSame(await cellsOf(folder, "killed"), whole);
    const report = await reportOf(folder, "whole");
    assert.deepEqual(await reportOf(folder, "killed"), report);

    await Promise.all(["1/2", "2/2"].map((shard) => finish(start(folder, shard[0], "--shard", shard))));
    const parts = [await cellsOf(folder, "1"), await cellsOf(folder, "2")];
    assert(parts.every(({ size }) => size > 0), "a part is empty");
    const text = await finish(
      start(folder, "merged", "--merge", ["1", "2"].map((p) => join(folder, p)).join(",")),
    );
    assert.match(text, /6 cells brought into/);
    // Nothing was left to run: no device was opened.
    assert.doesNotMatch(text, /tuning/);
    assertSame(await cellsOf(folder, "merged"), whole);
    assert.deepEqual(await reportOf(folder, "merged"), report);
    assert.deepEqual(
      await Deno.readFile(join(folder, "merged/study.json")),
      await Deno.readFile(join(folder, "whole/study.json")),
    );

    // Damage is found and named; a cell that is gone is run again, to the same bytes.
    const [tune] = [...whole.keys()].filter((name) => /^tune-.*manifest/.test(name)),
      [cell] = tune.split("/");
    await Deno.writeTextFile(join(folder, "whole/cells", cell, MANIFEST), "{");
    const { code, stderr } = await start(folder, "whole").output();
    assert.equal(code, 2);
    assert.match(
      new TextDecoder().decode(stderr),
      new RegExp(`Cannot use the cell "${cell}" \\(.*delete its folder`),
    );
    await Deno.remove(join(folder, "whole/cells", cell), { recursive: true });
    await finish(start(folder, "whole"));
    assertSame(await cellsOf(folder, "whole"), whole);
  }));
