/**
 * Files of torch.save that hold a dictionary of tensors: ZIP files of today and the older form before torch 1.6.
 * The pickle inside is read, never run; a file that needs more than tensors and dictionaries is refused by name.
 */
import { InputError } from "../errors.ts";
import type { WeightSource } from "./checkpoint.ts";
import type { ByteSource } from "./folder.ts";
import { type Known, type Pickled, type PickleNames, readPickle } from "./pickle.ts";
import { checkStrided, countOf, readStrided, type Storage, type Strided } from "./pytorch_strided.ts";
import { type SafeDtype, toF32, WIDTH } from "./safetensors.ts";
import { dataStart, readZip } from "./zip_stored.ts";

const STORAGES: Record<string, SafeDtype> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};
const PICKLE_LIMIT = 64 * 2 ** 20;
/** What a file of the older form starts with, as a pickle: the number 0x1950a86a20f9469cfc6c. */
const LEGACY_START = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];

class StorageType {
  constructor(readonly dtype: SafeDtype) {}
}
class StoredTensor implements Strided {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: number[],
    readonly strides: number[],
  ) {}
}
class StorageObject implements Storage {
  constructor(readonly key: string, readonly dtype: SafeDtype, readonly count: number) {}
}

/** Where the storages of a file lie: bytes of one of them. */
type ReadStorage = (storage: Storage, offset: number, length: number) => Promise<Uint8Array<ArrayBuffer>>;

/** Opens a `.bin`, `.pt` or `.pth` of torch.save. @throws InputError naming the file and what is wrong with it */
export async function openPytorch(source: ByteSource): Promise<WeightSource> {
  const start = await source.readAt(0, Math.min(source.size, LEGACY_START.length));
  const legacy = LEGACY_START.every((byte, i) => start[i] === byte);
  const { root, read } = legacy ? await openLegacy(source) : await openZip(source);
  return sourceOf(source, tensorsOf(source.name, root), read);
}

async function openZip(source: ByteSource): Promise<{ root: Pickled; read: ReadStorage }> {
  const entries = await readZip(source);
  const fail = (why: string): never => {
    throw new InputError(`Cannot read "${source.name}": ${why}`);
  };
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) fail(`it has ${pickles.length} entries "data.pkl" in a folder, expected 1`);
  const prefix = pickles[0].slice(0, -"data.pkl".length);
  const bytesOf = async (name: string) => {
    const entry = entries.get(name)!;
    if (entry.size > PICKLE_LIMIT) {
      fail(`its "${name}" has ${entry.size} bytes, at most ${PICKLE_LIMIT} expected`);
    }
    return await source.readAt(await dataStart(source, entry), entry.size);
  };
  if (entries.has(`${prefix}byteorder`)) {
    const order = new TextDecoder().decode(await bytesOf(`${prefix}byteorder`)).trim();
    if (order !== "little") fail(`its byte order is "${order}", expected "little"`);
  }
  const names = namesOf(source.name, (storage) => {
    const entry = entries.get(`${prefix}data/${storage.key}`) ?? fail(`it has no storage "${storage.key}"`);
    const expected = storage.count * WIDTH[storage.dtype];
    if (entry.size < expected) {
      fail(`its storage "${storage.key}" has ${entry.size} bytes, expected ${expected}`);
    }
  });
  const { value } = readPickle(await bytesOf(pickles[0]), names);
  const starts = new Map<string, number>();
  return {
    root: value,
    async read(storage, offset, length) {
      const known = starts.get(storage.key) ??
        await dataStart(source, entries.get(`${prefix}data/${storage.key}`)!);
      starts.set(storage.key, known);
      return await source.readAt(known + offset, length);
    },
  };
}

/** Five pickles (number, version, machine, object, keys of the storages), then each storage with its length. */
async function openLegacy(source: ByteSource): Promise<{ root: Pickled; read: ReadStorage }> {
  const fail = (why: string): never => {
    throw new InputError(`Cannot read "${source.name}": ${why}`);
  };
  const head = await source.readAt(0, Math.min(source.size, PICKLE_LIMIT));
  const widths = new Map<string, number>();
  const names = namesOf(source.name, ({ key, dtype }) => widths.set(key, WIDTH[dtype]));
  const values: Pickled[] = [];
  let at = 0;
  for (let i = 0; i < 5; i++) {
    const { value, end } = readPickle(head, names, at);
    values.push(value);
    at = end;
  }
  const [, version, machine, root, keys] = values;
  if (version !== 1001) fail(`its version is ${spell(version)}, expected 1001`);
  if (machine instanceof Map && machine.get("little_endian") === false) fail("its byte order is big-endian");
  if (!Array.isArray(keys)) fail("it has no list of storages");
  const starts = new Map<string, { start: number; bytes: number }>();
  for (const key of keys as Pickled[]) {
    if (typeof key !== "string" || !widths.has(key)) return fail(`its list of storages names ${spell(key)}`);
    if (at + 8 > source.size) fail(`it ends before storage "${key}"`);
    const count = Number(new DataView((await source.readAt(at, 8)).buffer).getBigInt64(0, true));
    const bytes = count * widths.get(key)!;
    if (count < 0 || at + 8 + bytes > source.size) {
      fail(`its storage "${key}" claims ${bytes} bytes from byte ${at + 8}, the file has ${source.size}`);
    }
    starts.set(key, { start: at + 8, bytes });
    at += 8 + bytes;
  }
  return {
    root,
    async read(storage, offset, length) {
      const found = starts.get(storage.key) ?? fail(`it has no storage "${storage.key}"`);
      if (offset + length > found.bytes) {
        fail(`its storage "${storage.key}" has ${found.bytes} bytes, expected ${offset + length}`);
      }
      return await source.readAt(found.start + offset, length);
    },
  };
}

/** The names that a dictionary of tensors needs; `check` sees every storage that is mentioned. */
function namesOf(what: string, check: (storage: Storage) => void): PickleNames {
  const fail = (why: string): never => {
    throw new InputError(`Cannot read "${what}": ${why}`);
  };
  const globals = new Map<string, Known>([
    ["collections.OrderedDict", {
      call: (args) => args.length ? fail("an OrderedDict has arguments") : new Map(),
    }],
    ["torch._utils._rebuild_tensor_v2", {
      call([storage, offset, shape, strides]) {
        const fits = storage instanceof StorageObject && typeof offset === "number" && isInts(shape) &&
          isInts(strides);
        if (!fits) {
          return fail("a tensor is made of other things than a storage, an offset, a shape and strides");
        }
        return new StoredTensor(storage, offset, shape, strides);
      },
    }],
    ["torch._utils._rebuild_parameter", {
      call: ([tensor]) => tensor instanceof StoredTensor ? tensor : fail("a parameter is no tensor"),
    }],
  ]);
  for (const [name, dtype] of Object.entries(STORAGES)) {
    globals.set(`torch.${name}`, { value: new StorageType(dtype) });
  }
  return {
    what,
    globals,
    persistent(id) {
      const [kind, type, key, , count] = Array.isArray(id) ? id : [];
      if (
        kind !== "storage" || !(type instanceof StorageType) || typeof key !== "string" ||
        !Number.isSafeInteger(count) || Number(count) < 0
      ) return fail("it refers to something outside its pickle that is no storage");
      if (Array.isArray(id) && id.length > 5 && id[5] !== null) return fail("it has views of storages");
      const storage = new StorageObject(key, type.dtype, Number(count));
      check(storage);
      return storage;
    },
  };
}

const MOST_AXES = 64;
/** Short before it is looked at, so that one long list that many tensors share costs nothing. */
const isInts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= MOST_AXES && value.every((n) => typeof n === "number");

/** A value in a message. Containers are not spelt out: a few bytes of pickle can nest to any length. */
const spell = (value: Pickled): string =>
  ["string", "number", "boolean"].includes(typeof value)
    ? JSON.stringify(value).slice(0, 80)
    : "something else";

/** The tensors of a dictionary by name; numbers and texts beside them (an epoch, a version) are left out. */
function tensorsOf(file: string, root: Pickled): Map<string, Strided> {
  if (!(root instanceof Map)) {
    throw new InputError(`Cannot read "${file}": it holds no dictionary of tensors`);
  }
  const tensors = new Map<string, Strided>();
  for (const [name, value] of root) {
    if (typeof name !== "string" || !(value instanceof StoredTensor)) continue;
    checkStrided(value, `tensor "${name}" of "${file}"`);
    tensors.set(name, value);
  }
  if (tensors.size === 0) {
    const keys = [...root.keys()].slice(0, 5).map(spell).join(", ");
    throw new InputError(`Cannot read "${file}": its dictionary has no tensors, only ${keys || "nothing"}`);
  }
  return tensors;
}

function sourceOf(source: ByteSource, tensors: Map<string, Strided>, read: ReadStorage): WeightSource {
  const at = (name: string): Strided => {
    const tensor = tensors.get(name);
    if (!tensor) throw new InputError(`Cannot read "${source.name}": it has no tensor "${name}"`);
    return tensor;
  };
  const range = (name: string, from: number, to: number) => {
    const tensor = at(name);
    return readStrided(tensor, from, to, (offset, length) => read(tensor.storage, offset, length));
  };
  const f32Range = async (name: string, from: number, to: number) =>
    toF32(await range(name, from, to), at(name).storage.dtype, `tensor "${name}" of "${source.name}"`);
  return {
    name: source.name,
    names: () => [...tensors.keys()],
    shape: (name) => at(name).shape,
    dtype: (name) => at(name).storage.dtype,
    f32: (name) => f32Range(name, 0, countOf(at(name).shape)),
    f32Range,
    bytes: (name) => range(name, 0, countOf(at(name).shape)),
    close: () => source.close(),
  };
}
