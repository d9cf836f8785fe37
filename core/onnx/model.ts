/**
 * A graph as an ONNX file: one protobuf message, or, where weights are more than a message holds, a message and a file of
 * weights beside it. Refuses nothing itself: onnx's checker judges the result.
 */
import { VERSION } from "../formats/manifest.ts";
import { sizeOf } from "../shape.ts";
import {
  type Attribute,
  type Computed,
  ELEMENT_BYTES,
  type ElementType,
  type Graph,
  type Initializer,
  type Node,
} from "./graph.ts";
import { type Bytes, Message } from "./protobuf.ts";

/** The operators' version, and the file format's that goes with it. */
export const OPSET = 17;
const IR_VERSION = 8;

/** onnx.proto, TensorProto.DataType. */
const TYPES: Record<ElementType, number> = { f32: 1, i8: 3, i32: 6, i64: 7, f16: 10 };

/** A message holds less than 2 GiB; beyond this much, weights go into a file of their own. */
export const INLINE_LIMIT = 2_000_000_000;

/** Bytes of all constants. */
export function weightBytes({ initializers }: Pick<Graph, "initializers">): number {
  return initializers.reduce((sum, initializer) => sum + bytesOf(initializer), 0);
}

const bytesOf = ({ type, shape }: Initializer): number => sizeOf(shape) * ELEMENT_BYTES[type];

/** The whole file, its constants inside. */
export async function encodeModel(graph: Graph): Promise<Bytes> {
  const tensors: Message[] = [];
  for (const initializer of graph.initializers) {
    tensors.push(tensorOf(initializer).bytes(9, await initializer.load()));
  }
  return modelOf(graph, tensors).encode();
}

/** Smaller constants stay in the message: runtimes read shapes before they open other files. */
const BESIDE = 1024;

/** The file without its larger constants, which lie in `location` beside it in the order of `externalChunks`. */
export async function encodeModelBeside(graph: Graph, location: string): Promise<Bytes> {
  const tensors: Message[] = [];
  let offset = 0;
  for (const initializer of graph.initializers) {
    const length = bytesOf(initializer), tensor = tensorOf(initializer);
    tensors.push(tensor);
    if (length < BESIDE) {
      tensor.bytes(9, await initializer.load());
      continue;
    }
    for (const [key, value] of Object.entries({ location, offset, length })) {
      tensor.bytes(13, new Message().bytes(1, key).bytes(2, String(value)));
    }
    tensor.int(14, 1);
    offset += length;
  }
  return modelOf(graph, tensors).encode();
}

/** What stands in the file of constants. */
export async function* externalChunks({ initializers }: Graph): AsyncGenerator<Bytes> {
  for (const initializer of initializers) if (bytesOf(initializer) >= BESIDE) yield await initializer.load();
}

function modelOf(graph: Graph, tensors: readonly Message[]): Message {
  const content = new Message()
    .each(graph.nodes, (message, node) => message.bytes(1, nodeOf(node)))
    .bytes(2, graph.name)
    .each(tensors, (message, tensor) => message.bytes(5, tensor))
    .each(graph.inputs, (message, input) => message.bytes(11, valueInfo(input)))
    .each(graph.outputs, (message, output) => message.bytes(12, valueInfo(output)));
  return new Message()
    .int(1, IR_VERSION)
    .bytes(2, "afterimage")
    .bytes(3, VERSION)
    .bytes(7, content)
    .bytes(8, new Message().bytes(1, "").int(2, OPSET));
}

function tensorOf({ name, type, shape }: Initializer): Message {
  return new Message().each(shape, (message, size) => message.int(1, size)).int(2, TYPES[type]).bytes(
    8,
    name,
  );
}

/** An input or output: 32-bit floats of a fixed shape. */
function valueInfo({ name, shape }: Computed): Message {
  const sizes = new Message().each(shape, (message, size) => message.bytes(1, new Message().int(1, size)));
  const tensor = new Message().int(1, TYPES.f32).bytes(2, sizes);
  return new Message().bytes(1, name).bytes(2, new Message().bytes(1, tensor));
}

function nodeOf({ op, inputs, outputs, attributes }: Node): Message {
  return new Message()
    .each(inputs, (message, name) => message.bytes(1, name))
    .each(outputs, (message, name) => message.bytes(2, name))
    .bytes(3, outputs[0])
    .bytes(4, op)
    .each(Object.entries(attributes), (message, [name, value]) => message.bytes(5, attributeOf(name, value)));
}

/** Numbers are integers unless they say that they are floats. onnx.proto, AttributeProto.AttributeType. */
function attributeOf(name: string, value: Attribute): Message {
  const message = new Message().bytes(1, name);
  if (typeof value === "number") return message.int(3, value).int(20, 2);
  if (typeof value === "string") return message.bytes(4, value).int(20, 3);
  if ("float" in value) return message.float(2, value.float).int(20, 1);
  return message.each(value, (message, entry) => message.int(8, entry)).int(20, 7);
}
