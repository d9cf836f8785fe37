/**
 * What a host of the contract brings and how its steps ask: keys of every kind, bundles as forms, one request. Judges nothing.
 */
import assert from "node:assert/strict";
import { type Folder, MemoryFolder } from "../core/formats/folder.ts";
import { MANIFEST, writeManifest } from "../core/formats/manifest.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { BUNDLE_FACTS, BUNDLE_TENSORS } from "../core/probe/bundle.ts";
import { createKey, type KeyRecord } from "../functions/auth.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { png, root } from "./service_probe.ts";

export interface Keys {
  score: string;
  admin: string;
  /** Used up by the last step. */
  spent: string;
}

export interface ContractHost {
  url: string;
  keys: Keys;
}

/** Keys of every kind, and what a host keeps of them. */
export async function contractKeys(): Promise<{ keys: Keys; records: KeyRecord[] }> {
  const [score, admin, spent] = [
    await createKey(["score"]),
    await createKey(["admin"]),
    await createKey(["score"]),
  ];
  const keys = { score: score.key, admin: admin.key, spent: spent.key };
  return { keys, records: [score.record, admin.record, spent.record] };
}

export const EXAMPLE_BUNDLE: Folder = new DiskFolder(
  new URL("../models/example_bundle", import.meta.url).pathname,
);

/** The test probe as a bundle without a model; `title` makes versions differ. */
export async function upstreamBundle(title: string): Promise<{ folder: Folder; hash: string }> {
  const folder = new MemoryFolder("bundle");
  const facts = JSON.parse(new TextDecoder().decode(await root.read("tiny-test/probe.json")));
  facts.layers[1].threshold = { fpr01: -100, fpr001: 100 };
  await folder.write(BUNDLE_FACTS, JSON.stringify({ ...facts, title, encoder: { kind: "upstream" } }));
  await folder.write(BUNDLE_TENSORS, await root.read("tiny-test/probe.safetensors"));
  const { hash } = await writeManifest(folder, { kind: "bundle" });
  return { folder, hash };
}

/** A bundle as the form that PUT takes, the manifest first; `change` alters a file on its way. */
export async function bundleForm(
  folder: Folder,
  change: (name: string, bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer> | undefined = (
    _,
    bytes,
  ) => bytes,
): Promise<FormData> {
  const form = new FormData(), names = (await folder.list()).filter((name) => name !== MANIFEST);
  for (const name of [MANIFEST, ...names]) {
    const bytes = change(name, await folder.read(name));
    if (bytes) form.append(name, new Blob([bytes]), name);
  }
  return form;
}

export type Step = [name: string, run: (host: ContractHost) => Promise<void>];

export const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

/** One request; `key` names which of the host's keys goes with it. */
export function ask(
  { url, keys }: ContractHost,
  method: string,
  path: string,
  { key = "score", body, type, headers }: {
    key?: keyof Keys | null;
    body?: BodyInit;
    type?: string;
    headers?: Record<string, string>;
  } = {},
): Promise<Response> {
  return fetch(url + path, {
    method,
    body,
    signal: AbortSignal.timeout(20_000),
    headers: { ...(key && bearer(keys[key])), ...(type && { "content-type": type }), ...headers },
  });
}

export const json = async (response: Response, status = 200): Promise<unknown> => {
  const text = await response.text();
  assert.equal(response.status, status, text);
  return JSON.parse(text);
};
export const image = (bytes: Uint8Array<ArrayBuffer> = png) => ({ body: bytes, type: "image/png" });
export const SCORE = "/v1/probes/edge/score";

export async function examplePicture(): Promise<Uint8Array<ArrayBuffer>> {
  const out = blankPicture(64, 64);
  for (let i = 0; i < out.data.length; i++) out.data[i] = (i * 7) % 256;
  return await encodeImage(out, "png");
}
