/**
 * Files of torch.save: tensors as torch itself wrote them, and checkpoint folders made of them. Pickles that would
 * run something, nest without end or are damaged anywhere are refused, and none of them hangs.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { openWeights, type WeightSource } from "../core/formats/checkpoint.ts";
import { type ByteSource, bytesSource, MemoryFolder } from "../core/formats/folder.ts";
import { openPytorch } from "../core/formats/pytorch.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { FIXTURES } from "./check.ts";

const folder = new DiskFolder(`${FIXTURES}/pytorch`);
const expected: Record<string, { shape: number[]; values: number[] }> = JSON.parse(
  new TextDecoder().decode(await folder.read("expected.json")),
);
const integers = ["i64", "i32", "i16", "i8", "u8", "flags"];

async function assertTensors(source: WeightSource): Promise<void> {
  assert.deepEqual(source.names(), Object.keys(expected));
  for (const [name, { shape, values }] of Object.entries(expected)) {
    assert.deepEqual(source.shape(name), shape, name);
    if (integers.includes(name)) {
      await assert.rejects(source.f32(name), InputError);
      continue;
    }
    const rounded = [...Float32Array.from(values)];
    assert.deepEqual([...await source.f32(name)], rounded, name);
    for (const [from, to] of [[0, 1], [1, 3], [values.length - 2, values.length], [2, 2]]) {
      if (from < 0 || to > values.length) continue;
      assert.deepEqual(
        [...await source.f32Range(name, from, to)],
        rounded.slice(from, to),
        `${name} ${from}-${to}`,
      );
    }
    await assert.rejects(source.f32Range(name, 0, values.length + 1), RangeError);
  }
  const bytes = {
    i64: BigInt64Array,
    i32: Int32Array,
    i16: Int16Array,
    i8: Int8Array,
    u8: Uint8Array,
    flags: Uint8Array,
  };
  for (const [name, type] of Object.entries(bytes)) {
    assert.deepEqual(
      Array.from(new type((await source.bytes(name)).buffer), Number),
      expected[name].values,
      name,
    );
  }
  assert.deepEqual(integers.map((name) => source.dtype(name)), ["I64", "I32", "I16", "I8", "U8", "BOOL"]);
}

for (const file of ["tensors.bin", "legacy.bin"]) {
  Deno.test(`${file}: every type, views with strides and shared storages read as torch has them`, async () => {
    const source = await openPytorch(await folder.open(file));
    await assertTensors(source);
    source.close();
  });
}

Deno.test("a module's dictionary and values beside the tensors do not disturb", async () => {
  const module = await openPytorch(await folder.open("module.bin"));
  assert.deepEqual(module.names().map((name) => [name, module.shape(name)]), [["weight", [2, 3]], ["bias", [
    2,
  ]]]);
  module.close();
  const mixed = await openPytorch(await folder.open("mixed.bin"));
  assert.deepEqual(mixed.names(), ["weight"]);
  mixed.close();
});

const open = (name: string, bytes: Uint8Array<ArrayBuffer>) => openPytorch(bytesSource(name, bytes));

Deno.test("what torch.save can write beyond tensors is refused by name", async () => {
  const refuse = async (file: string, pattern: RegExp) =>
    await assert.rejects(
      open(file, await folder.read(file)),
      (error) => error instanceof InputError && pattern.test(error.message),
      file,
    );
  await refuse(
    "whole_module.bin",
    /names "torch\.nn\.modules\.linear\.Linear", .* nothing in it was executed$/,
  );
  await refuse("sparse.bin", /names "torch\._utils\._rebuild_sparse_tensor"/);
  await refuse("nested.bin", /has no tensors, only "state_dict"$/);
});

/** The smallest ZIP file with these entries, all stored. */
function zip(entries: Record<string, Uint8Array | string>, method = 0): Uint8Array<ArrayBuffer> {
  const parts: number[] = [], directory: number[] = [];
  const u16 = (n: number) => [n & 255, n >> 8 & 255],
    u32 = (n: number) => [...u16(n & 0xffff), ...u16(n >>> 16)];
  for (const [name, content] of Object.entries(entries)) {
    const text = new TextEncoder().encode(name);
    const data = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const sizes = [...u32(0), ...u32(data.length), ...u32(data.length), ...u16(text.length), ...u16(0)];
    directory.push(0x50, 0x4b, 1, 2, ...u16(0), ...u16(0), ...u16(0), ...u16(method), ...u32(0), ...sizes);
    directory.push(...u16(0), ...u16(0), ...u16(0), ...u32(0), ...u32(parts.length), ...text);
    parts.push(0x50, 0x4b, 3, 4, ...u16(0), ...u16(0), ...u16(method), ...u32(0), ...sizes, ...text);
    for (const byte of data) parts.push(byte);
  }
  const count = u16(Object.keys(entries).length), start = parts.length;
  const end = [
    0x50,
    0x4b,
    5,
    6,
    ...u16(0),
    ...u16(0),
    ...count,
    ...count,
    ...u32(directory.length),
    ...u32(start),
    0,
    0,
  ];
  return Uint8Array.from([...parts, ...directory, ...end]);
}

/** Latin-1 text as bytes: opcodes can be written as Python's pickletools prints them. */
const latin = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const withPickle = (pickle: string) =>
  zip({ "archive/data.pkl": latin(pickle), "archive/byteorder": "little" });
const unicode = (text: string) => `X${String.fromCharCode(text.length)}\0\0\0${text}`;

const HOSTILE: Record<string, [pickle: string, why: RegExp]> = {
  "os.system": [`\x80\x02cos\nsystem\n${unicode("true")}\x85R.`, /names "os\.system"/],
  "builtins.eval": [`\x80\x02cbuiltins\neval\n${unicode("1")}\x85R.`, /names "builtins\.eval"/],
  "a global of protocol 4": [`\x80\x04\x8c\x02os\x8c\x06system\x93.`, /protocol 4/],
  "a global from the stack": [`\x80\x02${unicode("os")}${unicode("system")}\x93.`, /opcode 0x93/],
  "an instance": [`\x80\x02(ios\nsystem\n.`, /opcode 0x69/],
  "an object": [`\x80\x02(cos\nsystem\no.`, /names "os\.system"/],
  "a new object": [`\x80\x02ccollections\nOrderedDict\n)\x81.`, /opcode 0x81/],
  "an extension": [`\x80\x02\x82\x01.`, /opcode 0x82/],
  "a text persistent id": [`\x80\x02Pstorage\n.`, /opcode 0x50/],
  "a call of a value": [`\x80\x02ctorch\nFloatStorage\n)R.`, /calls what is no known function/],
  "a call of a dictionary": [`\x80\x02})R.`, /calls what is no known function/],
  "attributes of a tensor type": [`\x80\x02ctorch\nFloatStorage\n}b.`, /sets attributes/],
  "a tensor of a forged storage": [
    `\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(}K\0)))t\x52.`,
    /made of other things/,
  ],
  "a storage that is not there": [
    `\x80\x02(${unicode("storage")}ctorch\nFloatStorage\n${unicode("9")}${unicode("cpu")}K\x01tQ.`,
    /no storage "9"/,
  ],
  "an empty stack": [`\x80\x02R.`, /empty stack/],
  "a stack below its mark": [`\x80\x02](0.`, /opcode 0x30/],
  "an undefined memo": [`\x80\x02h\x07.`, /object 7/],
  "no end": [`\x80\x02]]]`, /ends at byte/],
  "a length beyond the file": [`\x80\x02X\xff\xff\xff\xff.`, /ends at byte/],
  "a huge list of one object": [`\x80\x02]q\0(${"h\0".repeat(50_000)}e.`, /no dictionary of tensors/],
};
for (const [what, [pickle, why]] of Object.entries(HOSTILE)) {
  Deno.test(`a pickle with ${what} is refused`, async () => {
    await assert.rejects(
      open(what, withPickle(pickle)),
      (error) => error instanceof InputError && why.test(error.message),
    );
  });
}

Deno.test("nesting without end and shared structures cost what they weigh", async () => {
  const deep = `\x80\x02${"]".repeat(200_000)}${"a".repeat(199_999)}.`;
  await assert.rejects(open("deep", withPickle(deep)), /no dictionary of tensors/);
  const wrapped = `\x80\x02)${"\x85".repeat(200_000)}.`;
  await assert.rejects(open("wrapped", withPickle(wrapped)), /no dictionary of tensors/);
  // Each list holds the one before twice: spelt out it would have 2^60 elements.
  const doubled = Array.from({ length: 60 }, (_, i) => `]q${String.fromCharCode(i + 1)}(h\0h\0eq\0`).join("");
  await assert.rejects(open("doubled", withPickle(`\x80\x02]q\0${doubled}.`)), /stops with a stack/);
  const asKey = `\x80\x02}]q\0(${"h\0".repeat(60)}e]q\x01(${"h\0".repeat(60)}eK\x01s.`;
  await assert.rejects(open("as key", withPickle(asKey)), InputError);
});

Deno.test("a tensor must lie in its storage, and a repeated one stays small", async () => {
  const tensor = (offset: string, shape: string, strides: string) =>
    zip({
      "a/data.pkl": latin(
        `\x80\x02}${unicode("w")}ctorch._utils\n_rebuild_tensor_v2\n((${
          unicode("storage")
        }ctorch\nFloatStorage\n` +
          `${unicode("0")}${unicode("cpu")}K\x04tQ${offset}${shape}${strides}\x89}tRs.`,
      ),
      "a/data/0": new Uint8Array(16),
    });
  const good = await open("good", tensor("K\x01", "K\x03\x85", "K\x01\x85"));
  assert.deepEqual([...await good.f32("w")], [0, 0, 0]);
  const refused: Record<string, Uint8Array<ArrayBuffer>> = {
    "reaches element 4, its storage has 4": tensor("K\x01", "K\x04\x85", "K\x01\x85"),
    "repeats a storage of 4 elements": tensor("K\0", "J\0\0\0\x7fK\x02\x86", "K\0K\0\x86"),
    "are no view": tensor("J\xff\xff\xff\xff", "K\x03\x85", "K\x01\x85"),
    "made of other things": tensor("K\0", `(${"K\x01".repeat(70)}t`, `(${"K\x01".repeat(70)}t`),
  };
  for (const [why, bytes] of Object.entries(refused)) {
    await assert.rejects(
      open("bad", bytes),
      (error) => error instanceof InputError && error.message.includes(why),
      why,
    );
  }
});

Deno.test("big-endian, compressed and doubled entries are refused", async () => {
  const empty = latin("\x80\x02}.");
  await assert.rejects(
    open("big", zip({ "archive/data.pkl": empty, "archive/byteorder": "big" })),
    /byte order is "big", expected "little"$/,
  );
  await assert.rejects(open("packed", zip({ "archive/data.pkl": empty }, 8)), /compressed \(method 8\)/);
  await assert.rejects(
    open("two", zip({ "a/data.pkl": empty, "b/data.pkl": empty })),
    /has 2 entries "data.pkl"/,
  );
  await assert.rejects(open("none", zip({ "a/other": empty })), /has 0 entries "data.pkl"/);
  await assert.rejects(
    open("text", latin("version https://git-lfs.github.com/spec/v1\n")),
    /no ZIP directory/,
  );
});

Deno.test("zip64: entries beyond four gigabytes are found where its records say", async () => {
  const plain = zip({ "a/data.pkl": latin("\x80\x02}."), "a/byteorder": "little" }), gap = 5e9;
  const view = new DataView(plain.buffer),
    end = plain.length - 22,
    directory = view.getUint32(end + 16, true);
  const head = plain.slice(0, directory), entries: number[] = [];
  const u64 = (n: number) => Array.from({ length: 8 }, (_, i) => Math.floor(n / 256 ** i) % 256);
  for (let at = directory; at < end;) {
    const next = at + 46 + view.getUint16(at + 28, true), entry = [...plain.subarray(at, next)];
    entry.splice(30, 2, 12, 0); // the length of the extras
    entry.splice(42, 4, 255, 255, 255, 255);
    entries.push(...entry, 1, 0, 8, 0, ...u64(view.getUint32(at + 42, true) + gap));
    at = next;
  }
  const start = gap + head.length, record = start + entries.length;
  const counts = [...u64(2), ...u64(2), ...u64(entries.length), ...u64(start)];
  const tail = [...entries, 0x50, 0x4b, 6, 6, ...u64(44), ...Array(12).fill(0), ...counts];
  tail.push(0x50, 0x4b, 6, 7, 0, 0, 0, 0, ...u64(record), 1, 0, 0, 0);
  tail.push(0x50, 0x4b, 5, 6, 0, 0, 0, 0, ...Array(4).fill(255), ...Array(8).fill(255), 0, 0);
  const late = Uint8Array.from([...head, ...tail]);
  const source: ByteSource = {
    name: "late",
    size: gap + late.length,
    close: () => {},
    readAt: (offset, length) => {
      const bytes = new Uint8Array(length), from = offset - gap; // what lies before is all zero
      if (from >= 0) bytes.set(late.subarray(from, from + length));
      else if (from + length > 0) bytes.set(late.subarray(0, from + length), -from);
      return Promise.resolve(bytes);
    },
  };
  await assert.rejects(openPytorch(source), /its dictionary has no tensors, only nothing$/);
});

for (const file of ["tensors.bin", "legacy.bin"]) {
  Deno.test(`${file} cut anywhere or with a wrong byte is read or refused, nothing else`, async () => {
    const bytes = await folder.read(file);
    const attempt = async (damaged: Uint8Array<ArrayBuffer>, what: string): Promise<boolean> => {
      try {
        const source = await open(file, damaged);
        for (const name of source.names()) await source.bytes(name);
        return true;
      } catch (error) {
        assert(error instanceof InputError, `${what}: ${error}`);
        return false;
      }
    };
    for (let length = 0; length < bytes.length; length += 7) {
      assert(!await attempt(bytes.slice(0, length), `cut at ${length}`), `cut at ${length} was not noticed`);
    }
    for (let at = 0; at < bytes.length; at++) {
      const damaged = bytes.slice();
      damaged[at] ^= 1 << at % 8;
      await attempt(damaged, `byte ${at}`);
    }
  });
}

Deno.test("pytorch_model.bin and its shards are a checkpoint; safetensors go first", async () => {
  const module = await folder.read("module.bin"), mixed = await folder.read("mixed.bin");
  const files = new MemoryFolder("model");
  await assert.rejects(
    openWeights(files),
    /has no model\.safetensors and no .* and no pytorch_model\.bin\.index\.json$/,
  );
  await files.write("a.bin", module);
  await files.write(
    "pytorch_model.bin.index.json",
    JSON.stringify({ metadata: {}, weight_map: { weight: "a.bin", bias: "a.bin" } }),
  );
  assert.deepEqual((await openWeights(files)).names(), ["weight", "bias"]);
  await files.write("b.bin", mixed);
  await files.write(
    "pytorch_model.bin.index.json",
    JSON.stringify({ weight_map: { weight: "a.bin", other: "b.bin" } }),
  );
  await assert.rejects(openWeights(files), /tensor "weight" is in two shards$/);
  await files.write("pytorch_model.bin.index.json", JSON.stringify({ weight_map: { weight: "../a.bin" } }));
  await assert.rejects(openWeights(files), /Cannot use the file name "\.\.\/a\.bin"/);
  await files.write("pytorch_model.bin", mixed);
  assert.deepEqual((await openWeights(files)).names(), ["weight"]);
  await files.write(
    "model.safetensors",
    encodeSafetensors({ own: { shape: [1], data: new Float32Array(1) } }),
  );
  assert.deepEqual((await openWeights(files)).names(), ["own"]);
});
