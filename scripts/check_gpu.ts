/**
 * WebGPU for `deno task check`: the model that a stored probe was fitted on, as the service's encoder.
 * It refuses a model, a run or an adapter other than the probe's.
 */
import { InputError } from "../core/errors.ts";
import type { StoredProbe } from "../core/probe/stored.ts";
import { promptSchema } from "../core/text/codec.ts";
import type { Encoder } from "../functions/encoder.ts";
import { openGpu } from "../gpu/device.ts";
import { createGpuEncoder } from "./encoder.ts";
import { modelFolder, type ModelParts } from "./model.ts";
import { openChosen, type TunedFlags, tunedParent } from "./tuned.ts";
import { weightsOf } from "./weights.ts";

export interface GpuSettings extends ModelParts, TunedFlags {
  model: string;
  adapter?: string;
  template?: string;
  system?: string;
  weights: Parameters<typeof weightsOf>[0]["weights"];
  quant?: Parameters<typeof weightsOf>[0]["quant"];
}

const SETUP = new URL("./setup.ts", import.meta.url).pathname;

/** @throws InputError unless model and training are those that the probe names */
export async function openGpuEncoder(
  probe: StoredProbe,
  { model, mmProjector, visionTower, run, peft, adapter, weights: type, quant, ...text }: GpuSettings,
): Promise<{ encoder: Encoder; close(): void }> {
  const parent = await tunedParent({ run, peft }), tuned = parent.run ?? parent.adapter ?? null;
  const refuse = (what: string, actual: string | null, expected: string | null) =>
    new InputError(
      `Cannot check with the probe "${probe.id}": ${what} is ${actual ?? "missing"}, expected ${
        expected ?? "none"
      }`,
    );
  if (tuned !== probe.model.adapter) {
    throw refuse(`--${peft === undefined ? "run" : "peft"}`, tuned, probe.model.adapter);
  }
  // Only who scores here needs a driver, so it is not part of the task's line.
  await new Deno.Command(Deno.execPath(), { args: ["run", "-A", SETUP, "--quiet"] }).output();
  const base = await modelFolder(model, { mmProjector, visionTower }), gpu = await openGpu(adapter);
  const session = await openChosen(gpu, base, { run, peft }, {
    weights: weightsOf({ weights: type, quant }),
    text: promptSchema.parse(text),
  });
  const close = () => {
    session.close();
    gpu.close();
  };
  if (session.hash !== probe.model.hash) {
    close();
    throw refuse(`the model "${model}"`, session.hash, probe.model.hash);
  }
  return { encoder: createGpuEncoder([{ session, adapter: tuned }]), close };
}
