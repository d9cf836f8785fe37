/**
 * Runs the chains of a study: an arm is tuned, read and asked, gradients are compared, probes are fitted beside. What is
 * done stays done; stopped or killed anywhere, the same command goes on to the same bytes. A failure names its cell.
 */
import { InputError, Interrupted, messageOf } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { planArm, type ProbeScene } from "../core/study/arms.ts";
import { blindPixels } from "../core/study/blind.ts";
import { canonical, type Cell, type Chain, primaryOf, tuningOf } from "../core/study/cells.ts";
import type { StudyModel } from "../core/study/config.ts";
import { ASKED } from "../core/study/evidence.ts";
import { tuneSchema } from "../core/study/results.ts";
import { unitsOf, workOf } from "../core/study/work.ts";
import type { Gpu } from "../gpu/device.ts";
import type { Session } from "../gpu/session.ts";
import { activationsCell, type ArmRun, finishTune, openArm, tuneArm } from "../gpu/study_arm.ts";
import { gradientCell, type GradientRun } from "../gpu/study_gradients.ts";
import { saysCell } from "../gpu/study_says.ts";
import { type Judgement, vqaOf } from "../gpu/study_vqa.ts";
import { type Progress, progress } from "./progress.ts";
import {
  cellFolder,
  cellName,
  finishCell,
  isDone,
  isPlain,
  placeOf,
  readResult,
  writeTimes,
} from "./study_cell.ts";
import { type Clock, createClock } from "./study_clock.ts";
import { spanOf } from "./study_plan.ts";
import { createProbePool, type ProbePool } from "./study_probe.ts";
import { folderOf, openContext, type SeedContext, type Study } from "./study_setup.ts";

export interface StudyRun {
  study: Study;
  /** Those to run here. */
  chains: readonly Chain[];
  folder: Folder;
  gpu: Gpu;
  signal: AbortSignal;
}

/** What the chains of a run share. */
interface Shop extends StudyRun {
  probes: ProbePool;
  clock: Clock;
  contextOf(data: string, seed: number): Promise<SeedContext>;
  baseOf(model: StudyModel): Promise<Folder>;
  /** Answers before any step, asked once for all arms that begin alike. */
  beforeOf(run: ArmRun, cell: Cell, ask: () => Promise<Judgement>): Promise<Judgement>;
}

/** @throws Interrupted when the signal fires; otherwise what went wrong in a cell, by its name */
export async function runStudy(run: StudyRun): Promise<void> {
  const { study: { config, identities }, chains, folder, signal } = run;
  const left = await Promise.all(chains.map(async (chain) => {
    const done = await Promise.all(chain.cells.map((cell) => isDone(folder, cell)));
    return { name: chain.name, cells: chain.cells.filter((_, i) => !done[i]), all: chain.cells };
  }));
  const clock = createClock(
    left.flatMap(({ cells }) => cells),
    (cell) => unitsOf(workOf(config, identities, cell)),
  );
  const probes = createProbePool();
  const shop: Shop = {
    ...run,
    probes,
    clock,
    contextOf: latest((data: string, seed: number) => openContext(config, data, seed)),
    baseOf: latest((model: StudyModel) => folderOf(model)),
    beforeOf: answersBefore(),
  };
  const start = performance.now();
  try {
    for (const [at, { name, cells, all }] of left.entries()) {
      if (cells.length === 0) continue;
      console.error(`[${at + 1}/${left.length}] ${name}`);
      await runChain(shop, all, new Set(cells.map(({ id }) => id)));
      const togo = clock.left();
      if (togo !== undefined && at + 1 < left.length) {
        console.error(`  ${spanOf(secondsSince(start))} so far, about ${spanOf(togo)} to go`);
      }
    }
    await finishProbes(probes, signal);
  } finally {
    probes.stop();
  }
}

/** A function that keeps its last answer for as long as it is asked the same. */
function latest<A extends unknown[], T>(make: (...args: A) => Promise<T>): (...args: A) => Promise<T> {
  let last: { args: A; value: Promise<T> } | undefined;
  return (...args) => {
    if (!last || last.args.some((arg, i) => arg !== args[i])) last = { args, value: make(...args) };
    return last.value;
  };
}

/** Remembers the answers of a fresh model: they depend on what is trained of it, not on how. */
function answersBefore(): Shop["beforeOf"] {
  const known = new Map<string, Judgement>();
  return async ({ model, arm }, { key: { data, seed } }, ask) => {
    const key = canonical([model.name, data, seed, arm.name === "base"]);
    const answers = known.get(key) ?? await ask();
    known.set(key, answers);
    return answers;
  };
}

async function runChain(shop: Shop, cells: readonly Cell[], todo: ReadonlySet<string>): Promise<void> {
  const { study: { config }, gpu, signal } = shop, [{ key }] = cells;
  const model = config.models.find(({ name }) => name === key.model)!;
  const { context, scenes, questions } = await shop.contextOf(key.data, key.seed);
  const base = await shop.baseOf(model);
  const shared = { gpu, base, model, context, signal, batch: key.batch };
  const tuningFor = (arm: string) => tuningOf(config, model, arm, key.batch, context.source.count);
  if (key.arm === undefined) {
    const [cell] = cells;
    // Both trajectories are those of the clean arm.
    const gradientRun = { ...shared, tuning: tuningFor("r0"), gradients: config.gradients! };
    if (todo.has(cell.id)) await inCell(shop, cell, () => runGradients(shop, gradientRun, cell));
    return;
  }
  const run: ArmRun = { ...shared, arm: planArm(key.arm), tuning: tuningFor(key.arm) };
  const [tune] = cells, tuned = cellFolder(shop.folder, tune);
  let session: Session | undefined;
  try {
    for (const cell of cells) {
      shop.probes.check();
      if (!todo.has(cell.id)) continue;
      await inCell(shop, cell, async () => {
        if (cell.kind === "tune") session = await runTune(shop, run, cell, questions);
        else if (cell.kind === "activations") {
          session ??= await openArm(run, tuned);
          const bar = progress(`  ${key.arm}: reading`, (await scenes()).length), start = performance.now();
          const folder = cellFolder(shop.folder, cell);
          await activationsCell(run, session, await scenes(), config.probe, cell, folder, bar.update);
          await writeTimes(folder, { seconds: secondsSince(start), adapter: gpu.name });
          bar.stop();
        } else if (cell.kind === "probe") await addProbe(shop, run, cell, cells, scenes);
        else {
          session ??= await openArm(run, tuned);
          await runSays(shop, run, cell, session, await scenes());
        }
      });
    }
  } finally {
    session?.close();
  }
}

const secondsSince = (start: number): number => (performance.now() - start) / 1000;

/** Tunes, with questions asked before and after, and leaves the session open for the cells behind. */
async function runTune(
  { folder, gpu, signal, beforeOf }: Shop,
  run: ArmRun,
  cell: Cell,
  questions: SeedContext["questions"],
): Promise<Session> {
  const target = cellFolder(folder, cell), start = performance.now(), { steps } = run.tuning;
  const ask = async (session: Session) => await vqaOf(session, await questions(), { signal });
  let before: Judgement | undefined;
  const bar = steps > 0 ? progress(`  ${run.arm.name}: tuning`, steps) : undefined;
  const tuned = await tuneArm(run, target, {
    onFresh: async (session) => {
      before = await beforeOf(run, cell, () => ask(session));
    },
    onStep: ({ step, loss }) => bar?.update(step, `loss ${loss.toFixed(3)}`),
  }).finally(() => bar?.stop());
  const after = steps > 0 ? await ask(tuned.session) : before!;
  await writeTimes(target, { seconds: secondsSince(start), adapter: gpu.name });
  await finishTune(run, tuned, target, cell, { before: before!, after });
  return tuned.session;
}

/** Asks an arm's model about everybody. */
async function runSays(
  { study: { config }, folder, gpu, signal }: Shop,
  { arm, context }: ArmRun,
  cell: Cell,
  session: Session,
  scenes: readonly ProbeScene[],
): Promise<void> {
  const { draws, partitions } = config.probe;
  let bar: Progress | undefined;
  const { result: { seconds, ...result }, asked } = await saysCell(session, arm, context, scenes, {
    ...{ says: config.says!, draws, partitions, signal },
    onProgress: (done, total) => (bar ??= progress(`  ${arm.name}: asking`, total)).update(done),
  }).finally(() => bar?.stop());
  const facts = { seconds, cell: cell.settings, seed: context.seed, adapter: gpu.name };
  const target = cellFolder(folder, cell);
  await target.write(ASKED, JSON.stringify(asked) + "\n");
  await finishCell(target, "says.json", result, facts);
}

/** Compares gradients; what a stopped comparison left is gone on from. */
async function runGradients({ folder, gpu }: Shop, run: GradientRun, cell: Cell): Promise<void> {
  const target = cellFolder(folder, cell), start = performance.now();
  let bar: Progress | undefined;
  const { seconds: _, ...result } = await gradientCell(run, target, {
    onProgress: (done, total) => (bar ??= progress("  gradients", total)).update(done),
  }).finally(() => bar?.stop());
  const facts = { seconds: secondsSince(start), cell: cell.settings, seed: run.context.seed };
  await finishCell(target, "gradients.json", result, { ...facts, adapter: gpu.name });
}

/** Hands a probe cell to the workers. */
async function addProbe(
  { study: { config, identities }, folder, probes }: Shop,
  { model, arm, context }: ArmRun,
  cell: Cell,
  chain: readonly Cell[],
  scenes: SeedContext["scenes"],
): Promise<void> {
  const parent = chain.find(({ id }) => id === cell.parents[0])!, [tune] = chain;
  const prompt = config.probe.prompts.find(({ id }) => id === cell.key.prompt)!;
  const { run } = await readResult(cellFolder(folder, tune), "tune.json", tuneSchema);
  const pictures = (await scenes()).map(({ picture }) => picture);
  probes.add(`"${cellName(cell)}" (${placeOf(cell)})`, {
    activations: cellFolder(folder, parent).path,
    folder: cellFolder(folder, cell).path,
    pixels: blindPixels(pictures),
    settings: {
      arm: arm.name,
      prompt,
      seed: context.seed,
      primary: primaryOf(config.probe.primary, prompt.id),
      probe: config.probe,
    },
    model: { name: model.name, hash: identities.models[model.name], adapter: run },
    cell: cell.settings,
  });
}

/** Runs one cell's work and gives whatever goes wrong the cell's name. */
async function inCell(
  { signal, clock }: Pick<Shop, "signal" | "clock">,
  cell: Cell,
  work: () => Promise<void>,
): Promise<void> {
  const start = performance.now();
  try {
    await work();
    clock.done(cell, secondsSince(start));
  } catch (error) {
    const name = `"${cellName(cell)}" (${placeOf(cell)})`;
    if (signal.aborted) {
      throw new Interrupted(`Stopped in the cell ${name}; the same command goes on from there`);
    }
    const message = `Cannot finish the cell ${name}: ${messageOf(error)}`;
    throw isPlain(error) ? new InputError(message) : new Error(message, { cause: error });
  }
}

/** Waits for the workers. */
async function finishProbes(probes: ProbePool, signal: AbortSignal): Promise<void> {
  const { total } = probes.share();
  if (total === 0) return;
  const bar = progress("probes", 100);
  const timer = setInterval(() => bar.update(Math.floor(100 * probes.share().done / total)), 500);
  const stop = () => probes.stop();
  signal.addEventListener("abort", stop);
  try {
    if (!signal.aborted) await probes.finish();
    if (signal.aborted) {
      throw new Interrupted("Stopped while probes were fitted; the same command goes on from there");
    }
    bar.update(100);
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", stop);
    bar.stop();
  }
}

/** What a study's folder says it is. */
export async function readStudy(folder: Folder): Promise<Omit<Study, "assumed">> {
  return await readJson(folder, "study.json") as Omit<Study, "assumed">;
}

/** Written before the first cell: the configuration, what its names stand for, and every cell of the grid. */
export async function writeStudy(folder: Folder, { config, identities, cells }: Study): Promise<void> {
  await folder.write("study.json", JSON.stringify({ config, identities, cells }, null, 1) + "\n");
}
