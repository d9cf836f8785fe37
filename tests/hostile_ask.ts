/**
 * How hostile files, requests and connections are put to a service, and what each may come to: 2xx or 4xx, in time.
 * It tells a picture that was scored from one that was refused, and fails at any other answer.
 */
import assert from "node:assert/strict";
import { problemSchema, scoreSchema } from "../functions/schemas.ts";
import type { HostileBytes, HostileRequest } from "./hostile_requests.ts";

export const LIMIT_MS = 2000;
/** By the clock, whatever else the machine does: a service that stands still works little. */
const STALL_MS = 15_000;

export interface Answer {
  name: string;
  /** "scored", a problem's type, or how a connection ended. */
  outcome: string;
  ms: number;
}

/** One request; the answer is a score or a problem document. `watch` measures it in milliseconds. */
export async function askOne(
  address: string,
  { name, type, headers, body }: HostileRequest,
  watch: () => () => number = clock,
): Promise<Answer> {
  const elapsed = watch(), byClock = clock();
  const response = await fetch(address, {
    method: "POST",
    body,
    headers: { "content-type": type, ...headers },
  });
  const text = await response.text(), ms = elapsed(), { status } = response;
  assert(status === 200 || (status >= 400 && status < 500), `${name}: ${status} ${text}`);
  assert(ms < LIMIT_MS, `${name}: ${ms} ms`);
  assert(byClock() < STALL_MS, `${name}: ${byClock()} ms by the clock`);
  if (status !== 200) return { name, outcome: problemSchema.parse(JSON.parse(text)).type, ms };
  scoreSchema.parse(JSON.parse(text));
  return { name, outcome: "scored", ms };
}

export function clock(): () => number {
  const start = performance.now();
  return () => performance.now() - start;
}

const statusesIn = (text: string): number[] =>
  [...text.matchAll(/HTTP\/1\.\d (\d{3})/g)].map(([, status]) => Number(status));

/** A bare connection to the service, and what came back on it so far. */
async function connect(url: string) {
  const { hostname, port } = new URL(url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const got = { text: "", closed: false };
  const reading = (async () => {
    const buffer = new Uint8Array(65_536), latin = new TextDecoder("latin1");
    for (;;) {
      const read = await connection.read(buffer).catch(() => null);
      if (read === null) break;
      got.text += latin.decode(buffer.subarray(0, read));
    }
    got.closed = true;
  })();
  const write = async (bytes: Uint8Array) => {
    for (let done = 0; done < bytes.length;) done += await connection.write(bytes.subarray(done));
  };
  const until = async (ready: () => boolean, ms: number) => {
    for (const elapsed = clock(); !ready() && elapsed() < ms;) await sleep(5);
    return ready();
  };
  const close = async () => {
    try {
      connection.close();
    } catch {
      // It was closed already.
    }
    await reading;
  };
  return { got, write, until, close, halfClose: () => connection.closeWrite().catch(() => {}) };
}

const sleep = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

/** Bytes as they are; what the server says, before or after the client has nothing left to say, is 2xx or 4xx. */
export async function askBytes(
  url: string,
  { name, bytes }: HostileBytes,
  withinMs = LIMIT_MS,
): Promise<Answer> {
  const elapsed = clock(), { got, write, until, close, halfClose } = await connect(url);
  try {
    await write(bytes).catch(() => {}); // a server may have heard enough
    const answered = () => statusesIn(got.text).length > 0 || got.closed;
    const atOnce = await until(answered, LIMIT_MS / 2);
    if (!atOnce) await halfClose();
    assert(await until(answered, withinMs), `${name}: neither answered nor closed`);
    const ms = elapsed();
    await until(() => got.closed, 50); // more answers, to requests behind the first
    const statuses = statusesIn(got.text), odd = statuses.filter((status) => status < 200 || status >= 500);
    assert.deepEqual(odd, [], `${name}: ${got.text.slice(0, 300)}`);
    const how = atOnce ? "" : ", after the client's end";
    return { name, outcome: `connection: ${statuses[0] ?? "closed"}${how}`, ms };
  } finally {
    await close();
  }
}

const headOf = (path: string, length: number) =>
  new TextEncoder().encode(
    `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Type: image/png\r\nContent-Length: ${length}\r\n\r\n`,
  );

/** An upload in `pieces` over `overMs`; the time counts from its last byte. */
export async function askSlowly(
  address: string,
  png: Uint8Array,
  { pieces, overMs, withinMs = LIMIT_MS }: { pieces: number; overMs: number; withinMs?: number },
): Promise<Answer> {
  const { got, write, until, close } = await connect(address), name = `an upload over ${overMs} ms`;
  try {
    await write(headOf(new URL(address).pathname, png.length));
    for (let n = 0; n < pieces; n++) {
      await sleep(overMs / pieces);
      await write(
        png.subarray(Math.floor(n * png.length / pieces), Math.floor((n + 1) * png.length / pieces)),
      );
    }
    const elapsed = clock();
    assert(await until(() => statusesIn(got.text).length > 0, withinMs), `${name}: no answer`);
    assert.deepEqual(statusesIn(got.text), [200], `${name}: ${got.text.slice(0, 300)}`);
    return { name, outcome: "scored", ms: elapsed() };
  } finally {
    await close();
  }
}

/** An upload that never ends, a byte now and then: refused with 408 within `withinMs` of its start. */
export async function askEndlessly(address: string, everyMs: number, withinMs: number): Promise<Answer> {
  const { got, write, until, close } = await connect(address), name = "an upload without an end";
  try {
    await write(headOf(new URL(address).pathname, 1_000_000));
    const elapsed = clock(), answered = () => statusesIn(got.text).length > 0;
    while (!answered() && elapsed() < withinMs) {
      await write(Uint8Array.of(0x89)).catch(() => {});
      await until(answered, everyMs);
    }
    assert.deepEqual(statusesIn(got.text), [408], `${name}: ${got.text.slice(0, 300)}`);
    assert.match(got.text, /\/problems\/body-timeout/);
    return { name, outcome: "/problems/body-timeout", ms: elapsed() };
  } finally {
    await close();
  }
}
