/**
 * Where the hub and its cache are: the environment variables that Hugging Face's own tools read, with their defaults.
 * Refuses an endpoint that is no http address.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";

export interface HubSettings {
  /** HF_ENDPOINT, without a slash at its end. */
  endpoint: string;
  /** HF_TOKEN, or what `hf auth login` left in HF_TOKEN_PATH; sent to the endpoint and to no other host. */
  token?: string;
  /** HF_HUB_CACHE, or `hub` below HF_HOME. */
  cache: string;
  /** HF_HUB_OFFLINE: only what the cache holds. */
  offline: boolean;
  /** Wait before the first further attempt, doubled with each. */
  retryMs: number;
}

const truth = (value?: string): boolean => ["1", "on", "yes", "true"].includes(value?.toLowerCase() ?? "");

/** @throws InputError naming the variable that is wrong */
export function hubSettings(env: Record<string, string | undefined> = Deno.env.toObject()): HubSettings {
  const endpoint = (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:\/\/[^/\s]/.test(endpoint)) {
    throw new InputError(`Cannot use HF_ENDPOINT "${endpoint}": expected an http or https address`);
  }
  const expand = (path: string) => path.replace(/^~(?=\/|$)/, homedir());
  const home = expand(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface"));
  return {
    endpoint,
    token: env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN ||
      (truth(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)
        ? undefined
        : storedToken(env.HF_TOKEN_PATH || join(home, "token"))),
    cache: expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub")),
    offline: truth(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    retryMs: 1000,
  };
}

function storedToken(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim() || undefined;
  } catch {
    return undefined; // nobody has logged in
  }
}
