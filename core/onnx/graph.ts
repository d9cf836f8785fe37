/**
 * An ONNX graph while it is put together: nodes in order, constants once each, names made here. Weights are stored as f32,
 * f16 or 8-bit integers a row, and computed with as f32. Refuses nothing itself: onnx's checker judges the result.
 */
import { encodeFloats } from "../formats/shards.ts";
import { sizeOf } from "../shape.ts";
import type { Bytes } from "./protobuf.ts";

export const WEIGHT_DTYPES = ["f32", "f16", "int8"] as const;
export type WeightDtype = typeof WEIGHT_DTYPES[number];
export type ElementType = "f32" | "f16" | "i8" | "i32" | "i64";

/** Bytes of one element. */
export const ELEMENT_BYTES: Record<ElementType, number> = { f32: 4, f16: 2, i8: 1, i32: 4, i64: 8 };

/** A constant whose values are read when the file is written. */
export interface Initializer {
  name: string;
  type: ElementType;
  shape: readonly number[];
  load(): Promise<Bytes>;
}

export type Attribute = number | string | readonly number[] | { float: number };

export interface Node {
  op: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: Record<string, Attribute>;
}

/** A value that nodes compute. */
export interface Computed {
  shape: readonly number[];
  name: string;
}

/** Values that are known without a picture: a parameter, rows of one, a table of sines. */
export interface Stored {
  shape: readonly number[];
  /** Equal keys stand for equal values. */
  key: string;
  /** Elements `from` to `to` of the flattened values. */
  range(from: number, to: number): Promise<Float32Array<ArrayBuffer>>;
}
export type Value = Computed | Stored;

/** What a constant may lose: a weight everything, a table to f16, what is exact nothing. `axis` counts a weight's outputs. */
export type Role = { kind: "weight"; axis: 0 | 1 } | { kind: "table" } | { kind: "exact" };

export const isStored = (value: Value): value is Stored => "range" in value;

/** Smaller tables are not worth a type of their own. */
const SMALL = 256;

/** A key that tells how a table is worked out may be long, a name in a file should not. */
const LONGEST_NAME = 100;

export class Graph {
  readonly nodes: Node[] = [];
  readonly initializers: Initializer[] = [];
  readonly inputs: Computed[] = [];
  readonly outputs: Computed[] = [];
  readonly #constants = new Map<string, string>();
  #count = 0;

  constructor(readonly name: string, readonly dtype: WeightDtype) {}

  input(name: string, shape: readonly number[]): Computed {
    const value = { name, shape };
    this.inputs.push(value);
    return value;
  }

  /** Makes a value an output of the graph under this name. */
  output(name: string, value: Value): void {
    this.nodes.push({ op: "Identity", inputs: [this.use(value)], outputs: [name], attributes: {} });
    this.outputs.push({ name, shape: value.shape });
  }

  /** Adds a node with one output of this shape. Inputs are values, or names of constants. */
  add(
    op: string,
    inputs: readonly (Value | string)[],
    shape: readonly number[],
    attributes: Record<string, Attribute> = {},
  ): Computed {
    const name = `${op}_${this.#count++}`;
    const names = inputs.map((input) => typeof input === "string" ? input : this.use(input));
    this.nodes.push({ op, inputs: names, outputs: [name], attributes });
    return { name, shape };
  }

  /** The same with several outputs. */
  split(x: Value, axis: number, shapes: readonly (readonly number[])[]): Computed[] {
    const base = `Split_${this.#count++}`, outputs = shapes.map((_, i) => `${base}_${i}`);
    const sizes = this.ints(shapes.map((shape) => shape[axis]));
    this.nodes.push({ op: "Split", inputs: [this.use(x), sizes], outputs, attributes: { axis } });
    return shapes.map((shape, i) => ({ name: outputs[i], shape }));
  }

  /** The name by which nodes read a value; stored ones become constants of the graph. */
  use(value: Value, role: Role = { kind: "exact" }): string {
    if (!isStored(value)) return value.name;
    const key = `${value.key} (${value.shape.join(", ")}) ${JSON.stringify(role)}`;
    return this.#once(key, () => this.#store(value, role));
  }

  /** A list of 64-bit integers: shapes, axes, bounds. */
  ints(values: readonly number[]): string {
    return this.#once(`i64 ${values}`, (name) => {
      const data = BigInt64Array.from(values, BigInt);
      this.#initializer(name, "i64", [values.length], () => Promise.resolve(new Uint8Array(data.buffer)));
      return name;
    });
  }

  /** 32-bit integers: rows to pick, and bounds that are compared. */
  indices(values: ArrayLike<number>, shape: readonly number[] = [values.length]): string {
    const data = Int32Array.from(values);
    return this.#once(`i32 ${shape.join("x")} ${data}`, (name) => {
      this.#initializer(name, "i32", shape, () => Promise.resolve(new Uint8Array(data.buffer)));
      return name;
    });
  }

  /** One 32-bit float. */
  scalar(value: number): string {
    return this.#once(`f32 ${value}`, (name) => {
      const data = Float32Array.of(value);
      this.#initializer(name, "f32", [], () => Promise.resolve(new Uint8Array(data.buffer)));
      return name;
    });
  }

  /** Takes out what no output needs: layers behind the last one that is asked for, and their weights. */
  prune(): void {
    const needed = new Set(this.outputs.map(({ name }) => name));
    for (const { inputs, outputs } of this.nodes.toReversed()) {
      if (outputs.some((name) => needed.has(name))) { for (const name of inputs) needed.add(name); }
    }
    this.#keep(this.nodes, ({ outputs }) => outputs.some((name) => needed.has(name)));
    this.#keep(this.initializers, ({ name }) => needed.has(name));
  }

  #keep<T>(list: T[], wanted: (item: T) => boolean): void {
    list.splice(0, list.length, ...list.filter(wanted));
  }

  /** A value that is made at most once, by its key. */
  #once(key: string, make: (name: string) => string): string {
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const name = make(`constant_${this.#count++}`);
    this.#constants.set(key, name);
    return name;
  }

  #initializer(name: string, type: ElementType, shape: readonly number[], load: Initializer["load"]): void {
    this.initializers.push({ name, type, shape, load });
  }

  #store({ key, shape, range }: Stored, role: Role): string {
    const size = sizeOf(shape), whole = () => range(0, size);
    // A parameter keeps its name, so that a graph can be read beside its checkpoint.
    const taken = key.length > LONGEST_NAME || this.initializers.some(({ name }) => name === key);
    const name = taken ? `constant_${this.#count++}` : key;
    const lossy = role.kind !== "exact" && size >= SMALL && this.dtype !== "f32";
    if (lossy && this.dtype === "int8" && role.kind === "weight") {
      const [rows, columns] = shape,
        cut = () => whole().then((values) => quantize(values, rows, columns, role.axis));
      this.#initializer(name, "i8", shape, () => cut().then(({ codes }) => bytesIn(codes)));
      const scales = `${name}_scale`;
      this.#initializer(scales, "f32", [shape[role.axis]], () => cut().then(({ scales }) => bytesIn(scales)));
      return this.add("DequantizeLinear", [name, scales], shape, { axis: role.axis }).name;
    }
    const type = lossy ? "f16" : "f32";
    this.#initializer(
      name,
      type,
      shape,
      async () => encodeFloats(await whole(), type === "f16" ? "F16" : "F32", key),
    );
    return lossy ? this.add("Cast", [name], shape, { to: 1 }).name : name;
  }
}

/** Weights (rows, columns) as 8-bit integers with one scale for each index of `axis`: w = code * scale, codes to 127. */
export function quantize(
  values: Float32Array,
  rows: number,
  columns: number,
  axis: 0 | 1,
): { codes: Int8Array<ArrayBuffer>; scales: Float32Array<ArrayBuffer> } {
  const scales = new Float32Array(axis === 0 ? rows : columns), codes = new Int8Array(values.length);
  const group = (i: number) => axis === 0 ? Math.floor(i / columns) : i % columns;
  for (let i = 0; i < values.length; i++) {
    scales[group(i)] = Math.max(scales[group(i)], Math.abs(values[i]));
  }
  for (let g = 0; g < scales.length; g++) scales[g] = scales[g] / 127 || 1;
  for (let i = 0; i < values.length; i++) codes[i] = Math.round(values[i] / scales[group(i)]);
  return { codes, scales };
}

const bytesIn = ({ buffer, byteOffset, byteLength }: ArrayBufferView<ArrayBuffer>): Bytes =>
  new Uint8Array(buffer, byteOffset, byteLength);
