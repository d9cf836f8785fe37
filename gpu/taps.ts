/**
 * Taps: named places inside a model where activations are read or edited. A request that matches no site is an
 * error that lists the sites; what is read is reduced on the GPU before it is read back.
 */
import { InputError } from "../core/errors.ts";
import type { Gpu } from "./device.ts";
import { poolRows } from "./ops/reduce.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

/** `last`, `index:-2`, `image-mean`, `text-mean`, `mean`: one row a sample. `all`: every row. */
export type Reduction = string;

export interface TapRequest {
  /** A site or a glob: `layers.*.resid_post`. */
  site: string;
  reduction: Reduction;
}

/** Rows of each sample in the packed micro-batch, and which of them hold image features. */
export interface SampleRows {
  /** S + 1 starts. */
  starts: number[];
  isImage: Uint8Array;
}

export type Edit = (x: Tensor, tape: Tape) => Tensor;

/** The rows that a reduction averages for every sample. @throws InputError for an unknown name or an empty group */
export function rowsFor(reduction: Reduction, { starts, isImage }: SampleRows): Uint32Array[] {
  const index = /^index:(-?\d+)$/.exec(reduction);
  return Array.from({ length: starts.length - 1 }, (_, s) => {
    const [from, to] = [starts[s], starts[s + 1]];
    const rows = Array.from({ length: to - from }, (_, i) => from + i);
    const at = reduction === "last" ? -1 : index ? Number(index[1]) : undefined;
    const chosen = at !== undefined
      ? rows.slice(at, at === -1 ? undefined : at + 1)
      : reduction === "image-mean"
      ? rows.filter((row) => isImage[row])
      : reduction === "text-mean"
      ? rows.filter((row) => !isImage[row])
      : reduction === "mean"
      ? rows
      : undefined;
    if (!chosen) {
      throw new InputError(
        `Unknown reduction "${reduction}": use last, index:N, image-mean, text-mean, mean or all`,
      );
    }
    if (chosen.length === 0) {
      throw new InputError(`Reduction "${reduction}" finds no token in sample ${s} of ${rows.length} tokens`);
    }
    return Uint32Array.from(chosen);
  });
}

export class Taps {
  /** `site@reduction` -> (samples, C), or (T, C) for `all`; owned by whoever collects them. */
  readonly found = new Map<string, Tensor>();
  readonly sites: string[] = [];
  readonly #patterns: { pattern: RegExp; request: TapRequest }[];

  constructor(
    readonly requests: readonly TapRequest[],
    readonly rows: SampleRows,
    readonly edits: ReadonlyMap<string, Edit> = new Map(),
  ) {
    this.#patterns = requests.map((request) => ({ pattern: globToRegExp(request.site), request }));
  }

  /** Called by the model at every site. */
  visit(site: string, x: Tensor, tape: Tape): Tensor {
    this.sites.push(site);
    const { gpu } = tape;
    for (const { pattern, request: { reduction } } of this.#patterns) {
      if (!pattern.test(site)) continue;
      const key = `${site}@${reduction}`;
      if (this.found.has(key)) continue;
      const T = this.rows.starts.at(-1);
      if (reduction !== "all" && x.shape[0] !== T) {
        throw new InputError(
          `Cannot reduce "${site}" by "${reduction}": it has ${
            x.shape[0]
          } rows for ${T} tokens; only all is possible`,
        );
      }
      using _scope = gpu.pool.scope();
      const value = reduction === "all"
        ? x
        : poolRows(new Tape(gpu, false), x, rowsFor(reduction, this.rows));
      const kept = gpu.persistent(value.shape);
      gpu.copy(value, kept);
      gpu.trace?.feature(key, value);
      this.found.set(key, kept);
    }
    return this.edits.get(site)?.(x, tape) ?? x;
  }

  /** For recomputation: edits must happen again, readings must not. */
  editsOnly(): Taps {
    return new Taps([], this.rows, this.edits);
  }

  /** @throws InputError for a request that no site answered, and for an edit of no site */
  check(): void {
    const unanswered = this.#patterns.find(({ pattern }) => !this.sites.some((site) => pattern.test(site)))
      ?.request.site ?? [...this.edits.keys()].find((site) => !this.sites.includes(site));
    if (unanswered !== undefined) {
      throw new InputError(
        `No tap site matches "${unanswered}": there are ${[...new Set(this.sites)].join(", ")}`,
      );
    }
  }

  /** Reads everything found in one wait and gives its buffers back: key -> values, row by row. */
  async collect(
    gpu: Gpu,
  ): Promise<Map<string, { shape: readonly number[]; data: Float32Array<ArrayBuffer> }>> {
    this.check();
    const keys = [...this.found.keys()], tensors = [...this.found.values()];
    const values = await gpu.read(...tensors);
    for (const { buffer } of tensors) gpu.pool.release(buffer);
    this.found.clear();
    return new Map(
      keys.map((key, i) => [key, { shape: tensors[i].shape, data: values[i] as Float32Array<ArrayBuffer> }]),
    );
  }
}

/** `*` stands for anything but a dot, `**` for anything. */
export function globToRegExp(glob: string): RegExp {
  const escaped = glob.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("**", "\0").replaceAll("*", "[^.]*").replaceAll("\0", ".*")}$`);
}
