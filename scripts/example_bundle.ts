/**
 * `deno task example`: makes the bundle that the service shows when it has no store of its own: the demo's positive
 * control, tuned on synthetic people, its calibrated probe and its encoder. It goes on where it was stopped.
 */
import { z } from "zod";
import { ARMS, demoPeople, PROBE_PROMPT, probeSamples } from "../core/demo/arms.ts";
import { Interrupted } from "../core/errors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { createWatermarker } from "../core/privacy/mark.ts";
import { TINY_WATERMARK } from "../core/privacy/watermark.ts";
import { pairedRows } from "../core/probe/activations.ts";
import { fitProbe } from "../core/probe/fit.ts";
import { storeProbe } from "../core/demo/probes.ts";
import { armFeatures, type DemoContext, tuneArm } from "../gpu/demo.ts";
import { openGpu } from "../gpu/device.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DEMO_PEOPLE, PRIMARY } from "./demo_run.ts";
import { exportBundle, exportSchema } from "./export.ts";
import { DiskFolder } from "./folder.ts";
import { modelFolder } from "./model.ts";
import { progress } from "./progress.ts";

const ID = "example";
/** Held-out scenes of two drawings: to fit and calibrate on, and others to measure the encoder on. */
const SCENES = 128, MEASURED = 4;

await runTask({
  name: "example",
  summary: "Make the example bundle of the service from a run of the demo's positive control",
  schema: z.object({
    work: z.string().default("runs/example").describe("folder of the run, the probe and the pictures"),
    out: z.string().default("models/example_bundle").describe("folder of the bundle"),
    seed: z.number().int().default(0).describe("of people, scenes, places and order"),
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  examples: ["deno task example"],
  async run({ work, out, seed, adapter }) {
    const folder = new DiskFolder(work), signal = interruptSignal(), gpu = await openGpu(adapter);
    const people = demoPeople(seed, DEMO_PEOPLE), watermarker = await createWatermarker(TINY_WATERMARK);
    const base = await modelFolder("builtin:tiny");
    const context: DemoContext = { gpu, base, seed, people, watermarker, signal };
    const tuning = progress("tuning", ARMS.known.steps), run = folder.folder("known");
    const tuned = await tuneArm(
      context,
      ARMS.known,
      run,
      ({ step, loss }) => tuning.update(step, `loss ${loss.toFixed(3)}`),
    );
    tuning.stop();

    const samples = probeSamples(seed, SCENES, people, watermarker);
    const reading = progress("reading", samples.length);
    const features = await armFeatures(context, tuned.session, samples, (done) => reading.update(done));
    reading.stop();
    const model = { name: "builtin:tiny", hash: tuned.session.hash, adapter: tuned.run };
    tuned.session.close();
    gpu.close();
    const rows = pairedRows(samples);
    const fitting = progress("fitting", 100);
    const fitted = await fitProbe({ samples: rows, features }, {
      seen: "U1",
      unseen: "U2",
      primary: PRIMARY,
      c: 1,
      centerScenes: true,
      standardize: true,
      faithful: { split: "scene", partitions: 10, seed, centerScenes: false, standardize: false },
      partitions: 8,
      draws: 99,
      calibrate: true,
      seed,
      signal,
      onProgress: (done, total) => fitting.update(Math.floor(100 * done / total)),
    }).catch((thrown) => {
      if (signal.aborted) throw new Interrupted("Interrupted: the same command goes on from the tuned model");
      throw thrown;
    }).finally(() => fitting.stop());
    await storeProbe(folder.folder("probe"), ID, fitted, model, PROBE_PROMPT);

    const others = probeSamples(seed + 1, MEASURED, people, watermarker),
      pictures = folder.folder("pictures");
    for (const { id, picture } of others) {
      await pictures.write(`${id.replace("/", "-")}.png`, await encodeImage(picture, "png"));
    }
    const { hash, variants } = await exportBundle(exportSchema.parse({
      probe: `${work}/probe`,
      run: run.path,
      out,
      images: `${work}/pictures`,
      adapter,
    }));
    console.log(JSON.stringify({ bundle: hash, variants }));
  },
});
