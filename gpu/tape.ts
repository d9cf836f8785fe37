/**
 * The tape: ops append how to go back; execution order is already topological, so backward walks an array.
 * Nothing is recorded where no input needs a gradient, and checkpointed parts are computed again instead of kept.
 */
import type { Gpu } from "./device.ts";
import { add } from "./ops/add.ts";
import type { PoolBuffer } from "./pool.ts";
import { type Dtype, type Tensor, viewAs } from "./tensor.ts";

/** Gets the gradient of the output, returns that of every input, in order; undefined where none is wanted. */
export type Backward = (dy: Tensor) => (Tensor | undefined)[];

interface Node {
  output: Tensor;
  inputs: readonly Tensor[];
  backward: Backward;
}

export class Tape {
  #nodes: Node[] = [];
  #grads = new Map<Tensor, Tensor>();
  /** Whether anything that needs a gradient passed through, recorded or not. */
  touched = false;

  constructor(readonly gpu: Gpu, readonly recording = true) {}

  /** A temporary for an op's result, given back by the innermost scope of the pool. */
  empty(shape: readonly number[], dtype: Dtype = "f32"): Tensor {
    return this.gpu.empty(shape, dtype);
  }

  /**
   * Declares that `output` was computed from `inputs` (activations and parameters alike) and how to go back.
   * A trained parameter's gradient is added to its `grad` inside `backward`; the matching entry stays undefined.
   */
  record(output: Tensor, inputs: readonly Tensor[], backward: Backward): Tensor {
    if (!inputs.some((input) => input.requiresGrad)) return output;
    this.touched = true;
    output.requiresGrad = true;
    if (this.recording) this.#nodes.push({ output, inputs, backward });
    return output;
  }

  /** The same elements under another shape. */
  reshape(x: Tensor, shape: readonly number[]): Tensor {
    const y = viewAs(x, shape);
    y.grad = undefined;
    y.requiresGrad = false;
    return this.record(y, [x], (dy) => [viewAs(dy, x.shape)]);
  }

  /**
   * Runs `body` and keeps only its result; backward runs it again. Nearly all memory of training is saved here.
   * `body` must compute the same again: dropout draws from a hash, never from a state.
   */
  checkpoint(
    inputs: readonly Tensor[],
    body: (tape: Tape, inputs: readonly Tensor[], again: boolean) => Tensor,
  ): Tensor {
    const { gpu } = this;
    const first = new Tape(gpu, false);
    let y: Tensor;
    {
      using scope = gpu.pool.scope();
      y = scope.keep(body(first, inputs, false));
    }
    if (inputs.includes(y)) return y;
    if (!first.touched) return y;
    this.touched = true;
    y.requiresGrad = true;
    if (!this.recording) return y;
    this.#nodes.push({
      output: y,
      inputs,
      backward: (dy) => {
        using scope = gpu.pool.scope();
        const inner = new Tape(gpu);
        const leaves = inputs.map((input) => ({ ...input }));
        inner.backward(body(inner, leaves, true), dy);
        return leaves.map((leaf) => {
          const grad = inner.gradOf(leaf);
          return grad && scope.keep(grad);
        });
      },
    });
    return y;
  }

  /** The gradient that reached a tensor so far. */
  gradOf(x: Tensor): Tensor | undefined {
    return this.#grads.get(x);
  }

  /**
   * Walks back from `output` with its gradient `dy`; every trained parameter's `grad` grows by its share. A gradient
   * whose last reader has run is given back at once, so that few of them live at a time.
   */
  backward(output: Tensor, dy: Tensor): void {
    const { pool } = this.gpu;
    using all = pool.scope();
    // Sums and reshapes pass a gradient on as it is: several tensors may lie in one buffer.
    const readers = new Map<PoolBuffer, number>();
    const drop = (tensor: Tensor) => {
      const grad = this.#grads.get(tensor);
      if (!grad) return;
      this.#grads.delete(tensor);
      const left = readers.get(grad.buffer)! - 1;
      readers.set(grad.buffer, left);
      if (left === 0) all.free(grad.buffer);
    };
    const put = (tensor: Tensor, grad: Tensor) => {
      readers.set(grad.buffer, (readers.get(grad.buffer) ?? 0) + 1);
      drop(tensor);
      this.#grads.set(tensor, grad);
    };
    put(output, dy);
    for (let i = this.#nodes.length - 1; i >= 0; i--) {
      const { output, inputs, backward } = this.#nodes[i];
      const dy = this.#grads.get(output);
      if (!dy) continue;
      using step = pool.scope();
      const grads = backward(dy);
      inputs.forEach((input, k) => {
        const grad = grads[k];
        if (!grad || !input.requiresGrad) return;
        const sum = this.#grads.get(input);
        put(input, step.keep(sum ? add(new Tape(this.gpu, false), sum, grad) : grad));
      });
      drop(output);
    }
    this.#nodes = [];
    for (const grad of this.#grads.values()) all.keep(grad);
  }
}
