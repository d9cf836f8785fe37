/**
 * NF4 matrices on the device, codes and scales in one buffer, and how one is written slice by slice while it is
 * quantised. Refuses slices of part of a block, and more or fewer values than the matrix has.
 */
import { NF4_BLOCK, nf4CodeBytes, nf4ScaleWords, packScales, quantizeNf4 } from "../core/formats/nf4.ts";
import { sizeOf } from "../core/shape.ts";
import type { Gpu } from "./device.ts";
import type { PoolBuffer } from "./pool.ts";
import { type Tensor, tensorOver } from "./tensor.ts";

/** Bytes that a matrix takes, codes and scales. */
export function nf4Bytes(shape: readonly number[]): number {
  const size = sizeOf(shape);
  return Math.ceil(nf4CodeBytes(size) / 256) * 256 + 4 * nf4ScaleWords(size);
}

/** A matrix over a buffer of `nf4Bytes`, its scales behind its codes; the content is what the buffer holds. */
export function nf4Over(buffer: PoolBuffer, shape: readonly number[]): Tensor {
  const words = nf4ScaleWords(sizeOf(shape));
  const scales = tensorOver(buffer, [words], "u32", nf4Bytes(shape) - 4 * words);
  return { ...tensorOver(buffer, shape, "nf4"), nf4: { scales, first: 0 } };
}

export interface Nf4Writer {
  /** The next values, whole blocks of 64 except at the end. */
  write(values: Float32Array): void;
  /** Writes the scales, which the mean over all blocks takes part in. */
  finish(): void;
}

/** Quantises what it is given, in order, into `nf4Over`; on the host it keeps a scale a block and nothing else. */
export function nf4Writer(gpu: Gpu, { shape, buffer, offset, nf4 }: Tensor): Nf4Writer {
  const size = sizeOf(shape), absmax = new Float32Array(Math.ceil(size / NF4_BLOCK));
  let position = 0;
  return {
    write(values) {
      const end = position + values.length;
      if (position % NF4_BLOCK || end > size) {
        throw new RangeError(
          `Cannot write ${values.length} values of ${size} from ${position} on in blocks of ${NF4_BLOCK}`,
        );
      }
      const codes = new Uint8Array(nf4CodeBytes(values.length));
      quantizeNf4(values, codes, absmax.subarray(position / NF4_BLOCK));
      const words = new Uint32Array(codes.buffer);
      gpu.write(tensorOver(buffer, [words.length], "u32", offset + position / 2), words);
      position = end;
    },
    finish() {
      if (position !== size) {
        throw new RangeError(`Cannot finish a matrix of ${size} values after ${position}`);
      }
      gpu.write(nf4!.scales, packScales(absmax));
    },
  };
}
