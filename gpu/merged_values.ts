/**
 * A model's parameters as training left them, read from the checkpoint and from what changed, a stretch at a time.
 * Refuses a parameter that the checkpoint does not hold.
 */
import { InputError } from "../core/errors.ts";
import type { WeightSource } from "../core/formats/checkpoint.ts";
import { addProduct, type Change } from "./merge.ts";
import type { Model } from "./models/model.ts";
import type { ParamValues } from "./onnx_trace.ts";

/** W, or what replaced it, and + scaling B A where there is an adapter too. @throws InputError by the parameter's name */
export function mergedValues(model: Model, base: WeightSource, change?: Change): ParamValues {
  const stored = new Map(base.names().map((name) => [model.rename(name) ?? "", name]));
  return {
    async range(name, from, to) {
      const replaced = change?.whole.get(name), tensor = replaced ?? stored.get(name);
      if (tensor === undefined) throw new InputError(`Cannot read "${base.name}": it has no "${name}"`);
      const source = replaced === undefined ? base : change!.source, adapter = change?.adapters.get(name);
      if (!adapter) return await source.f32Range(tensor, from, to);
      const [, K] = model.registry.params.get(name)!.shape,
        row = Math.floor(from / K),
        end = Math.ceil(to / K);
      const values = await source.f32Range(tensor, row * K, end * K);
      const a = await change!.source.f32(adapter.a), R = a.length / K;
      const b = await change!.source.f32Range(adapter.b, row * R, end * R);
      addProduct(values, b, a, { K, scaling: adapter.scaling });
      return values.slice(from - row * K, to - row * K);
    },
  };
}
