/**
 * Tensors as torch stores them: a storage, an offset into it, a shape and strides. Read as contiguous bytes, only the
 * stretch of the storage that is needed. Refuses views that leave their storage or repeat it into huge tensors.
 */
import { InputError } from "../errors.ts";
import { type SafeDtype, WIDTH } from "./safetensors.ts";

export interface Storage {
  readonly key: string;
  readonly dtype: SafeDtype;
  /** Elements. */
  readonly count: number;
}

export interface Strided {
  readonly storage: Storage;
  /** In elements, as are the strides. */
  readonly offset: number;
  readonly shape: number[];
  readonly strides: number[];
}

/** A view may repeat its storage (a stride of 0) up to this many elements: more is an attack on memory. */
const MOST_REPEATED = 2 ** 24;

/** @throws InputError unless every element lies in the storage */
export function checkStrided({ storage, offset, shape, strides }: Strided, what: string): void {
  const whole = [offset, ...shape, ...strides].every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!whole || shape.length !== strides.length) {
    throw new InputError(
      `Cannot read ${what}: its offset ${offset}, shape (${shape}) and strides (${strides}) are no view`,
    );
  }
  const count = countOf(shape);
  const last = offset + shape.reduce((sum, n, i) => sum + Math.max(0, n - 1) * strides[i], 0);
  if (count > 0 && last >= storage.count) {
    throw new InputError(`Cannot read ${what}: it reaches element ${last}, its storage has ${storage.count}`);
  }
  if (count > Math.max(storage.count, MOST_REPEATED)) {
    throw new InputError(
      `Cannot read ${what}: its (${shape}) repeats a storage of ${storage.count} elements`,
    );
  }
}

export const countOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function isContiguous({ shape, strides }: Strided): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i];
  }
  return true;
}

/**
 * Elements `from` to `to` in row-major order, as bytes. `read` takes a stretch of the storage, in bytes.
 * @throws RangeError outside the tensor
 */
export async function readStrided(
  tensor: Strided,
  from: number,
  to: number,
  read: (offset: number, length: number) => Promise<Uint8Array<ArrayBuffer>>,
): Promise<Uint8Array<ArrayBuffer>> {
  const { storage, offset, shape, strides } = tensor, width = WIDTH[storage.dtype], count = countOf(shape);
  if (from < 0 || to < from || to > count) {
    throw new RangeError(`Cannot read elements ${from} to ${to} of a tensor: it has ${count}`);
  }
  if (to === from) return new Uint8Array(0);
  if (isContiguous(tensor)) return await read((offset + from) * width, (to - from) * width);
  const places = new Float64Array(to - from); // beyond 2^32 elements an index is no 32-bit number
  const index = indexOf(from, shape);
  let place = offset + index.reduce((sum, n, i) => sum + n * strides[i], 0), low = place, high = place;
  for (let i = 0; i < places.length; i++) {
    places[i] = place;
    low = Math.min(low, place);
    high = Math.max(high, place);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place += strides[axis];
      if (++index[axis] < shape[axis]) break;
      place -= shape[axis] * strides[axis];
      index[axis] = 0;
    }
  }
  const span = await read(low * width, (high + 1 - low) * width);
  const out = new Uint8Array(places.length * width);
  for (let i = 0; i < places.length; i++) {
    const start = (places[i] - low) * width;
    for (let b = 0; b < width; b++) out[i * width + b] = span[start + b];
  }
  return out;
}

/** The place in every axis of an element given by its row-major number. */
function indexOf(element: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = element % shape[axis];
    element = Math.floor(element / shape[axis]);
  }
  return index;
}
