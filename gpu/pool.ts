/**
 * The buffer pool: storage buffers are handed out by size class, given back by scopes, and destroyed when too many
 * lie idle. Refuses a buffer that is larger than the device makes. Work on one queue is ordered, so a buffer may be
 * reused while its last reader is still waiting to run.
 */
import { InputError } from "../core/errors.ts";

const USAGE = 0x80 | 0x40 | 0x04 | 0x08; // STORAGE | UNIFORM | COPY_SRC | COPY_DST

export interface PoolBuffer {
  readonly gpu: GPUBuffer;
  /** Never reused for another buffer, so that it can key a cache of bind groups. */
  readonly id: number;
  readonly bytes: number;
}

/** Idle bytes allowed beyond those in use before the idle buffers are destroyed. */
const IDLE_ALLOWANCE = 256 * 2 ** 20;

export class Pool {
  #idle = new Map<number, PoolBuffer[]>();
  #scopes: Scope[] = [];
  #nextId = 1;
  /** Bytes of buffers that somebody holds, and of those that lie idle. */
  usedBytes = 0;
  idleBytes = 0;
  peakBytes = 0;
  /** Used and idle bytes beyond which idle buffers are destroyed before another is made. */
  budget = Infinity;
  /** Told of every buffer that is handed out or given back, with the change of `usedBytes`: what a plan listens to. */
  onChange?: (buffer: PoolBuffer, change: number) => void;

  /**
   * @param beforeDestroy submits recorded work and drops cached bind groups
   * @param slack bytes behind every buffer, so that a window of that size can be bound at any tensor's end
   */
  constructor(readonly device: GPUDevice, readonly beforeDestroy: () => void, readonly slack = 0) {}

  /** Bytes of the largest buffer. */
  get largest(): number {
    return Math.floor((this.device.limits.maxBufferSize - this.slack) / 256) * 256;
  }

  /** A buffer of at least `bytes`, with undefined content, owned by the caller. @throws InputError beyond `largest` */
  acquire(bytes: number): PoolBuffer {
    const size = Math.min(sizeClass(bytes), this.largest);
    if (bytes > size) {
      throw new InputError(`Cannot allocate ${bytes} bytes at once: the device's largest buffer has ${size}`);
    }
    const idle = this.#idle.get(size)?.pop();
    if (idle) this.idleBytes -= size;
    else if (
      this.idleBytes > IDLE_ALLOWANCE + this.usedBytes ||
      this.idleBytes > 0 && this.usedBytes + this.idleBytes + size > this.budget
    ) this.trim();
    const buffer = idle ??
      {
        gpu: this.device.createBuffer({ size: size + this.slack, usage: USAGE }),
        id: this.#nextId++,
        bytes: size,
      };
    this.usedBytes += size;
    this.peakBytes = Math.max(this.peakBytes, this.usedBytes + this.idleBytes);
    this.onChange?.(buffer, size);
    return buffer;
  }

  /** Gives a buffer back. Using it afterwards is a mistake that nothing catches. */
  release(buffer: PoolBuffer): void {
    this.usedBytes -= buffer.bytes;
    this.idleBytes += buffer.bytes;
    this.onChange?.(buffer, -buffer.bytes);
    const list = this.#idle.get(buffer.bytes);
    if (list) list.push(buffer);
    else this.#idle.set(buffer.bytes, [buffer]);
  }

  /** A buffer that the innermost open scope gives back. @throws Error outside any scope: that would be a leak */
  scoped(bytes: number): PoolBuffer {
    const scope = this.#scopes.at(-1);
    if (!scope) {
      throw new Error("Cannot allocate a temporary tensor outside a scope: open one with pool.scope()");
    }
    return scope.adopt(this.acquire(bytes));
  }

  /** Opens a scope; `using scope = pool.scope()` closes it. */
  scope(): Scope {
    const scope = new Scope(this, this.#scopes);
    this.#scopes.push(scope);
    return scope;
  }

  /** Destroys every idle buffer. */
  trim(): void {
    this.beforeDestroy();
    for (const list of this.#idle.values()) for (const buffer of list) buffer.gpu.destroy();
    this.#idle.clear();
    this.idleBytes = 0;
  }
}

/** Temporaries that live until the scope ends, unless kept for the scope around it. */
export class Scope {
  #held = new Set<PoolBuffer>();

  constructor(readonly pool: Pool, readonly stack: Scope[]) {}

  adopt(buffer: PoolBuffer): PoolBuffer {
    this.#held.add(buffer);
    return buffer;
  }

  /** Moves a buffer to the scope around this one; a buffer of an outer scope, or of none, stays where it is. */
  keep<T extends { readonly buffer: PoolBuffer }>(tensor: T): T {
    if (this.#held.delete(tensor.buffer)) {
      const outer = this.stack[this.stack.indexOf(this) - 1];
      outer?.adopt(tensor.buffer); // without one, the caller owns it now
    }
    return tensor;
  }

  /** Gives one of its buffers back before its end; a buffer that is not its own stays. */
  free(buffer: PoolBuffer): void {
    if (this.#held.delete(buffer)) this.pool.release(buffer);
  }

  [Symbol.dispose](): void {
    if (this.stack.at(-1) !== this) throw new Error("Cannot close a scope while one inside it is open");
    this.stack.pop();
    for (const buffer of this.#held) this.pool.release(buffer);
    this.#held.clear();
  }
}

/** Rounds up to a quarter step between powers of two, at least 256 bytes: at most a fifth is wasted. */
export function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const power = 2 ** Math.floor(Math.log2(bytes - 1));
  const step = Math.max(256, power / 4);
  return Math.ceil(bytes / step) * step;
}
