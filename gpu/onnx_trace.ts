/**
 * A model as an ONNX graph: its own forward pass runs over a device that computes nothing, and every op is written down.
 * Prompt, positions and the picture's size become constants. Refuses a prompt with other than one picture.
 */
import { type EncodedSample, pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { type Computed, Graph, type Stored, type Value, type WeightDtype } from "../core/onnx/graph.ts";
import { reshape, writeOp } from "../core/onnx/ops.ts";
import { numberedPixels, pixelNodes } from "../core/onnx/pixels.ts";
import { sizeOf } from "../core/shape.ts";
import { ANY_DEVICE, DryGpu } from "./dry_gpu.ts";
import type { HostArray } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { isWanted, placeFrozen } from "./models/weights.ts";
import { Forward } from "./nn/forward.ts";
import { Tape } from "./tape.ts";
import { type TapRequest, Taps } from "./taps.ts";
import type { Tensor } from "./tensor.ts";

/** Values of a model's parameters, by the tree's names. */
export interface ParamValues {
  /** Elements `from` to `to` of a parameter, as f32. */
  range(name: string, from: number, to: number): Promise<Float32Array<ArrayBuffer>>;
}

export interface ExportInput {
  /** A tree without weights on any device. */
  model: Model;
  values: ParamValues;
  /** The prompt with one picture of the size that the graph is for. */
  sample: EncodedSample;
  /** What the graph returns: one row for each feature "site@reduction". */
  requests: readonly TapRequest[];
  dtype: WeightDtype;
}

/** Where a tensor begins; its view is known from its shape. */
const placeOf = ({ buffer, offset }: Tensor): string => `${buffer.id}:${offset}`;

/** A device that computes nothing and remembers what the host has written to it. */
class TracedGpu extends DryGpu {
  readonly written = new Map<string, { number: number; values: Float32Array<ArrayBuffer> }>();
  #count = 0;

  override write(tensor: Tensor, values: HostArray | Uint16Array<ArrayBuffer>): void {
    super.write(tensor, values);
    if (!(values instanceof Float32Array)) return;
    this.written.set(placeOf(tensor), { number: this.#count++, values: values.slice() });
  }
}

/** The name of the graph's input: a processed picture. */
export const INPUT = "pixel_values";

/** Writes the model down. @throws InputError for a text prompt, for a site that does not exist, and for too many pixels */
export function traceModel({ model, values, sample, requests, dtype }: ExportInput): Graph {
  const [image] = sample.images;
  if (sample.images.length !== 1) {
    throw new InputError(`Cannot export a prompt with ${sample.images.length} pictures: expected 1`);
  }
  const gpu = new TracedGpu(ANY_DEVICE), graph = new Graph("encoder", dtype);
  for (const param of model.registry.params.values()) if (isWanted(param)) placeFrozen(gpu, param, "f32");
  const numbered = { ...image, pixelValues: numberedPixels(image.shape) };
  const input = graph.input(INPUT, image.shape);
  const known = new Map<string, Value>(), find = finder(gpu, { graph, model, values, known, input });
  gpu.trace = {
    op(op, inputs, output, options) {
      const found = inputs.map((tensor, i) => tensor && find(tensor, op === "linear" && i === 0));
      known.set(placeOf(output), writeOp(graph, op, found, options));
      gpu.written.delete(placeOf(output));
    },
    feature: (name, value) => graph.output(name, find(value)),
  };
  using _scope = gpu.pool.scope();
  const batch = pack([{ ...sample, images: [numbered] }], {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });
  const taps = new Taps(requests, batch);
  runModel(new Forward(new Tape(gpu, false), taps), model, batch, false);
  taps.check();
  graph.prune();
  return graph;
}

interface Known {
  graph: Graph;
  model: Model;
  values: ParamValues;
  /** Results of the ops so far, by where they lie. */
  known: Map<string, Value>;
  input: Computed;
}

/** What a tensor of the forward pass is: pixels, a result, a table of the host, a parameter or rows of one. */
function finder(gpu: TracedGpu, { graph, model, values, known, input }: Known) {
  const params = [...model.registry.params.values()].filter(({ placed }) => placed);
  return (tensor: Tensor, isFirstLayer = false): Value => {
    const place = placeOf(tensor), written = gpu.written.get(place), { shape } = tensor;
    // Towers alone feed a linear layer from the host.
    if (written && isFirstLayer) return pixelNodes(graph, input, written.values, shape);
    if (written) {
      const { number, values } = written;
      return { key: `table_${number}`, shape, range: (from, to) => Promise.resolve(values.slice(from, to)) };
    }
    const result = known.get(place);
    if (result) return reshape(graph, result, shape);
    const param = params.find(({ tensor: whole }) =>
      whole.buffer === tensor.buffer && tensor.offset + tensor.bytes <= whole.offset + whole.bytes
    );
    if (!param) throw new Error(`Cannot export: nothing is known of a tensor (${shape.join(", ")})`);
    const first = (tensor.offset - param.tensor.offset) / 4;
    return stored(param.name, first, shape, sizeOf(param.shape), values);
  };
}

function stored(
  name: string,
  first: number,
  shape: readonly number[],
  size: number,
  values: ParamValues,
): Stored {
  const key = sizeOf(shape) === size ? name : `${name}[${first}:${first + sizeOf(shape)}]`;
  return { key, shape, range: (from, to) => values.range(name, first + from, first + to) };
}
