/**
 * The verb `score`: pictures in, every layer's log-odds of "seen in training" out, as a table or as JSON lines.
 * Refuses a model or a run other than the one that the probe was fitted on, and files that are no safe pictures.
 */
import { z } from "zod";
import { InputError, Interrupted } from "../core/errors.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { decodeImage } from "../core/image/codecs.ts";
import type { Picture } from "../core/image/picture.ts";
import { type FeatureScore, loadProbe, scoreProbe, type StoredProbe } from "../core/probe/stored.ts";
import { promptSchema } from "../core/text/codec.ts";
import { openGpu } from "../gpu/device.ts";
import { interruptSignal, type Task } from "./cli.ts";
import { encodePicture } from "./encoder.ts";
import { DiskFolder, openFile } from "./folder.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { progress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { openChosen, tunedFlags, tunedParent } from "./tuned.ts";
import { weightSettings, weightsOf } from "./weights.ts";

/** The activations of a picture that a probe reads: (dim) a feature. */
export type EncodePicture = (picture: Picture) => Promise<Record<string, Float32Array>>;

export interface PictureScore {
  image: string;
  /** Of the file's bytes. */
  sha256: string;
  layers: FeatureScore[];
  /** The layer of the feature that was named before any result was seen. */
  primary: FeatureScore;
}

/** Decodes and scores one picture file. @throws InputError when it is missing or no safe picture */
export async function scoreFile(
  path: string,
  probe: StoredProbe,
  encode: EncodePicture,
): Promise<PictureScore> {
  const file = await openFile(path);
  try {
    const bytes = new Uint8Array(await file.readAt(0, file.size));
    const layers = scoreProbe(probe, await encode(await decodeImage(bytes, { name: path })));
    const primary = layers.find(({ feature }) => feature === probe.primary)!;
    return { image: path, sha256: await sha256(bytes), layers, primary };
  } finally {
    file.close();
  }
}

/** One row a picture and layer: the score, and the strictest stored threshold that it exceeds. */
export function scoreTable(probe: StoredProbe, scores: readonly PictureScore[]): string {
  const rows = scores.flatMap(({ image, layers }) =>
    layers.map(({ feature, score, probability, beyond }, i) => {
      const { fpr01 = null, fpr001 = null } = probe.layers[i].threshold ?? {};
      const above = fpr001 !== null && score > fpr001
        ? "above 0.1 % FPR"
        : fpr01 !== null && score > fpr01
        ? "above 1 % FPR"
        : "";
      const name = feature === probe.primary ? `${feature} *` : feature;
      return [image, name, score.toFixed(3), `${beyond ? "! " : ""}${probability.toFixed(3)}`, above];
    })
  );
  return formatTable(["image", "feature", "log-odds", "probability", "threshold"], rows) +
    `\n* the feature named beforehand; the probability is ${
      probe.layers.every(({ calibration }) => calibration)
        ? "calibrated on people left out of the fit; ! beyond what the probe has seen, better no answer"
        : "the logistic function of the score, not calibrated"
    }`;
}

const scoreSchema = z.object({
  probe: z.string().describe("folder of the stored probe"),
  ...modelFlags,
  run: tunedFlags.run.describe("folder of the run that the probe was fitted on, if it was one"),
  peft: tunedFlags.peft.describe("folder of the adapter that the probe was fitted on, if peft wrote it"),
  ...promptSchema.shape,
  ...weightSettings,
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  json: z.boolean().default(false).describe("one JSON object a picture instead of the table"),
});

/** @throws InputError unless model and run are those that the probe names */
async function openEncoder(
  probe: StoredProbe,
  { model, mmProjector, visionTower, run, peft, weights: type, quant, adapter, ...text }: z.infer<
    typeof scoreSchema
  >,
): Promise<{ encode: EncodePicture; close(): void }> {
  const parent = await tunedParent({ run, peft }), hash = parent.run ?? parent.adapter ?? null;
  if (hash !== probe.model.adapter) {
    throw new InputError(
      `Cannot score with the probe "${probe.id}": --${peft === undefined ? "run" : "peft"} is ${
        hash ?? "missing"
      }, expected ${probe.model.adapter ?? "none"}`,
    );
  }
  const weights = weightsOf({ weights: type, quant });
  const base = await modelFolder(model, { mmProjector, visionTower }), gpu = await openGpu(adapter);
  const session = await openChosen(gpu, base, { run, peft }, { weights, text: promptSchema.parse(text) });
  if (session.hash !== probe.model.hash) {
    gpu.close();
    throw new InputError(
      `Cannot score with the probe "${probe.id}": the model "${model}" is ${session.hash}, expected ${probe.model.hash}`,
    );
  }
  const signal = interruptSignal();
  return {
    encode: (picture) => {
      if (signal.aborted) throw new Interrupted("Interrupted: the pictures that are left were not scored");
      return encodePicture(session, probe, picture);
    },
    close: () => {
      session.close();
      gpu.close();
    },
  };
}

export const scoreTask: Task<typeof scoreSchema> = {
  name: "probe score",
  summary: "Score pictures with a stored probe, layer by layer",
  schema: scoreSchema,
  args: "<images...>",
  examples: ["deno task probe score photo.jpg --probe runs/demo/store/known --run runs/demo/arms/known"],
  async run(config, images) {
    const probe = await loadProbe(new DiskFolder(config.probe));
    const { encode, close } = await openEncoder(probe, config);
    try {
      const bar = progress("scoring", images.length), scores: PictureScore[] = [];
      for (const image of images) {
        const score = await scoreFile(image, probe, encode);
        scores.push(score);
        if (config.json) console.log(JSON.stringify({ probe: probe.id, ...score }));
        bar.update(scores.length);
      }
      bar.stop();
      if (!config.json) console.log(scoreTable(probe, scores));
    } finally {
      close();
    }
  },
};
