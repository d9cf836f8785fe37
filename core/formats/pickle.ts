/**
 * Python pickles, as far as torch.save writes them: a stack machine of protocol 2 that builds plain values.
 * It executes nothing: a name that the caller does not know, and an opcode that torch never writes, is refused.
 */
import { InputError } from "../errors.ts";

/** None, bool, int and float, str, and containers: tuples and lists are arrays, dictionaries are maps. */
export type Pickled =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Pickled[]
  | PickledMap
  | object;
export type PickledMap = Map<Pickled, Pickled>;

/** What a global name stands for: a constant, or a function of TypeScript that REDUCE may apply to a tuple. */
export type Known = { value: object } | { call: (args: Pickled[]) => Pickled };

export interface PickleNames {
  /** For messages: the file. */
  readonly what: string;
  /** The globals that may occur, by "module.name". */
  readonly globals: ReadonlyMap<string, Known>;
  /** What a persistent id stands for. */
  persistent(id: Pickled): Pickled;
}

interface Global {
  readonly global: string;
  readonly known: Known;
}

/**
 * Reads the pickle that starts at `start`. Memory and time are linear in its length: nothing recurses.
 * Opcodes: Lib/pickletools.py of Python 3. @throws InputError for anything unknown or damaged
 */
export function readPickle(
  bytes: Uint8Array<ArrayBuffer>,
  names: PickleNames,
  start = 0,
): { value: Pickled; end: number } {
  let at = start;
  const fail = (why: string): never => {
    throw new InputError(`Cannot read "${names.what}": its pickle ${why}; nothing in it was executed`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const take = (length: number): number => {
    const from = at;
    if (length > bytes.length - at) fail(`ends at byte ${bytes.length}, expected ${at + length} or more`);
    at += length;
    return from;
  };
  const byte = () => bytes[take(1)];
  const uint32 = () => view.getUint32(take(4), true);
  const text = (length: number): string => {
    const from = take(length);
    return new TextDecoder().decode(bytes.subarray(from, from + length));
  };
  const line = (): string => {
    const end = bytes.indexOf(10, at);
    if (end < 0) fail("has a name without end");
    const name = text(end - at);
    at++;
    return name;
  };

  const stack: (Pickled | Global)[] = [], marks: number[] = [], memo = new Map<number, Pickled | Global>();
  const pop = (): Pickled | Global => {
    if (stack.length <= (marks.at(-1) ?? 0)) fail("takes from an empty stack");
    return stack.pop()!;
  };
  const top = (): Pickled | Global => {
    if (stack.length <= (marks.at(-1) ?? 0)) fail("looks at an empty stack");
    return stack[stack.length - 1];
  };
  const sinceMark = (): Pickled[] => {
    const mark = marks.pop() ?? fail("has no mark where one is needed");
    return stack.splice(mark) as Pickled[];
  };
  const popArray = (): Pickled[] => {
    const value = pop();
    return Array.isArray(value) ? value : fail("has something else where a tuple is expected");
  };
  const tuple = (length: number) => {
    const items: Pickled[] = [];
    for (let i = 0; i < length; i++) items.unshift(pop() as Pickled);
    stack.push(items);
  };
  const append = (items: Pickled[]) => {
    const list = top();
    if (!Array.isArray(list)) return fail("appends to what is no list");
    for (const item of items) list.push(item);
  };
  const setItems = (items: Pickled[]) => {
    const map = top();
    if (!(map instanceof Map)) return fail("sets items of what is no dictionary");
    if (items.length % 2) fail("has a key without value");
    for (let i = 0; i < items.length; i += 2) map.set(items[i], items[i + 1]);
  };

  for (;;) {
    const place = at, opcode = byte();
    switch (opcode) {
      case 0x80: { // PROTO
        const version = byte();
        if (version > 2) fail(`has protocol ${version}, expected 2`);
        break;
      }
      case 0x2e: { // STOP
        const value = pop();
        if (stack.length || marks.length) fail("stops with a stack that is not empty");
        return { value: value as Pickled, end: at };
      }
      case 0x28: // MARK
        marks.push(stack.length);
        break;
      case 0x4e: // NONE
        stack.push(null);
        break;
      case 0x88: // NEWTRUE
        stack.push(true);
        break;
      case 0x89: // NEWFALSE
        stack.push(false);
        break;
      case 0x4b: // BININT1
        stack.push(byte());
        break;
      case 0x4d: // BININT2
        stack.push(view.getUint16(take(2), true));
        break;
      case 0x4a: // BININT
        stack.push(view.getInt32(take(4), true));
        break;
      case 0x8a: { // LONG1
        const length = byte(), from = take(length);
        stack.push(integerOf(bytes.subarray(from, from + length)));
        break;
      }
      case 0x47: // BINFLOAT
        stack.push(view.getFloat64(take(8), false));
        break;
      case 0x58: // BINUNICODE
        stack.push(text(uint32()));
        break;
      case 0x55: // SHORT_BINSTRING, a str of Python 2
        stack.push(text(byte()));
        break;
      case 0x29: // EMPTY_TUPLE
      case 0x5d: // EMPTY_LIST
        stack.push([]);
        break;
      case 0x7d: // EMPTY_DICT
        stack.push(new Map());
        break;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        tuple(opcode - 0x84);
        break;
      case 0x74: // TUPLE
        stack.push(sinceMark());
        break;
      case 0x61: { // APPEND
        const item = pop() as Pickled;
        append([item]);
        break;
      }
      case 0x65: // APPENDS
        append(sinceMark());
        break;
      case 0x73: { // SETITEM
        const value = pop() as Pickled, key = pop() as Pickled;
        setItems([key, value]);
        break;
      }
      case 0x75: // SETITEMS
        setItems(sinceMark());
        break;
      case 0x71: // BINPUT
        memo.set(byte(), top());
        break;
      case 0x72: // LONG_BINPUT
        memo.set(uint32(), top());
        break;
      case 0x68: // BINGET
      case 0x6a: { // LONG_BINGET
        const slot = opcode === 0x68 ? byte() : uint32();
        if (!memo.has(slot)) fail(`refers to object ${slot}, which it has not defined`);
        stack.push(memo.get(slot)!);
        break;
      }
      case 0x63: { // GLOBAL
        const global = `${line()}.${line()}`, known = names.globals.get(global);
        if (!known) return fail(`names ${JSON.stringify(global)}, which no file of weights needs`);
        stack.push("value" in known ? known.value : { global, known });
        break;
      }
      case 0x52: { // REDUCE
        const args = popArray(), callee = pop() as Global;
        if (!callee?.known || !("call" in callee.known)) return fail("calls what is no known function");
        stack.push(callee.known.call(args));
        break;
      }
      case 0x62: { // BUILD: attributes of an OrderedDict, such as a module's versions, which no weight depends on
        const state = pop(), target = top();
        if (!(target instanceof Map) || !(state instanceof Map)) {
          fail("sets attributes of what is no dictionary");
        }
        break;
      }
      case 0x51: // BINPERSID
        stack.push(names.persistent(pop() as Pickled));
        break;
      default:
        fail(
          `has the opcode 0x${
            opcode.toString(16).padStart(2, "0")
          } at byte ${place}, which torch never writes`,
        );
    }
  }
}

/** Two's complement, the lowest byte first: a number where it is exact, else a bigint. */
function integerOf(bytes: Uint8Array): number | bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[i]);
  value = BigInt.asIntN(8 * bytes.length, value);
  const exact = Number(value);
  return Number.isSafeInteger(exact) ? exact : value;
}
