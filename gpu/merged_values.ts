/**
 * A model's parameters as training left them, read from the checkpoint and from what changed, a stretch at a time.
 * Refuses a parameter that the checkpoint does not hold.
 */
import { InputError } from "../core/errors.ts";
import type { WeightSource } from "../core/formats/checkpoint.ts";
import { addProduct, type Change } from "./merge.ts";
import type { Model } from "./models/model.ts";
import type { ParamValues } from "./onnx_trace.ts";

/** W, or W + scaling B A, or what replaced W. @throws InputError by the parameter's name */
export function mergedValues(model: Model, base: WeightSource, change?: Change): ParamValues {
  const stored = new Map(base.names().map((name) => [model.rename(name) ?? "", name]));
  return {
    async range(name, from, to) {
      const replaced = change?.whole.get(name);
      if (replaced !== undefined) return await change!.source.f32Range(replaced, from, to);
      const tensor = stored.get(name);
      if (tensor === undefined) throw new InputError(`Cannot read "${base.name}": it has no "${name}"`);
      const adapter = change?.adapters.get(name);
      if (!adapter) return await base.f32Range(tensor, from, to);
      const [, K] = model.registry.params.get(name)!.shape,
        row = Math.floor(from / K),
        end = Math.ceil(to / K);
      const values = await base.f32Range(tensor, row * K, end * K);
      const a = await change!.source.f32(adapter.a), R = a.length / K;
      const b = await change!.source.f32Range(adapter.b, row * R, end * R);
      addProduct(values, b, a, { K, scaling: adapter.scaling });
      return values.slice(from - row * K, to - row * K);
    },
  };
}
