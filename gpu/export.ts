/**
 * What an exported encoder is made of: the prompt with one picture, the model's parameters as training left them, and the
 * graph for one type of weights. Nothing runs on a device here. Refuses a prompt under which the picture's size decides.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { openWeights, type WeightSource } from "../core/formats/checkpoint.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { readManifest } from "../core/formats/manifest.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import { parseFeature } from "../core/probe/activations.ts";
import type { Graph, WeightDtype } from "../core/onnx/graph.ts";
import type { StoredProbe } from "../core/probe/stored.ts";
import { type TextOptions, textSchema } from "../core/text/codec.ts";
import { ANY_DEVICE, DryGpu } from "./dry_gpu.ts";
import { type Change, changeOfPeft, changeOfRun } from "./merge.ts";
import { mergedValues } from "./merged_values.ts";
import { traceModel } from "./onnx_trace.ts";
import { openBare, type Session } from "./session.ts";

/** What was trained of a base model: a run, an adapter that peft wrote, or nothing. */
export interface Training {
  run?: Folder;
  peft?: Folder;
}

export interface Exported {
  /** Pixel values that the graph takes, and whether a picture of any size becomes that shape. */
  shape: readonly number[];
  fixed: boolean;
  /** Tokens of the prompt, the picture's included. */
  tokens: number;
  graph(dtype: WeightDtype): Graph;
  close(): void;
}

/** Two sizes that only a processor with one size of its own makes alike. */
const PROBES: [number, number][] = [[448, 448], [300, 200]];

/**
 * Opens model, training and prompt for `graph`.
 * @param size width and height of the pictures; needed where the processor keeps proportions
 * @throws InputError when the probe belongs to another model, or the size is needed and missing
 */
export async function openExport(
  base: Folder,
  { run, peft }: Training,
  probe: StoredProbe,
  { size, text }: { size?: [number, number]; text: Partial<TextOptions> },
): Promise<Exported> {
  const session = await openBare(new DryGpu(ANY_DEVICE), base, { text: await textOf(run, text) });
  if (session.hash !== probe.model.hash) {
    throw new InputError(
      `Cannot export the probe "${probe.id}": the model "${base.path}" is ${session.hash}, expected ${probe.model.hash}`,
    );
  }
  const json = await readJson(base, "config.json");
  const weights = await openWeights(base);
  let change: Change | undefined;
  try {
    change = run ? await changeOfRun(json, run) : peft && await changeOfPeft(json, peft);
    const { sample, fixed } = encodeBlank(session, probe, size);
    return describe(session, probe, { sample, fixed, weights, change });
  } catch (error) {
    weights.close();
    change?.source.close();
    throw error;
  }
}

/** A run's own template unless another one is given, as `openRun` has it. */
async function textOf(run: Folder | undefined, text: Partial<TextOptions>): Promise<Partial<TextOptions>> {
  if (!run) return text;
  const own = textSchema.partial().parse((await readManifest(run, "run")).manifest.config);
  return {
    ...own,
    ...(text.template !== undefined && { template: text.template }),
    ...(text.system !== undefined && { system: text.system }),
  };
}

/** The prompt beside a picture of nothing: only its size matters. */
function encodeBlank(session: Session, probe: StoredProbe, size?: [number, number]) {
  const ask = (picture: Picture) => session.encoder.ask("picture", probe.prompt, [picture]);
  const [one, other] = PROBES.map(([width, height]) => ask(blankPicture(width, height)));
  const fixed = one.images[0].shape.join() === other.images[0].shape.join();
  if (fixed) return { sample: one, fixed };
  if (!size) {
    throw new InputError(
      "Cannot export without --picture WIDTHxHEIGHT: this model's pixels differ with the picture's size",
    );
  }
  return { sample: ask(blankPicture(...size)), fixed };
}

function describe(
  { model }: Session,
  probe: StoredProbe,
  { sample, fixed, weights, change }: {
    sample: EncodedSample;
    fixed: boolean;
    weights: WeightSource;
    change?: Change;
  },
): Exported {
  const values = mergedValues(model, weights, change);
  const requests = probe.layers.map(({ feature }) => parseFeature(feature));
  return {
    shape: sample.images[0].shape,
    fixed,
    tokens: sample.ids.length,
    graph: (dtype) => traceModel({ model, values, sample, requests, dtype }),
    close() {
      weights.close();
      change?.source.close();
    },
  };
}
