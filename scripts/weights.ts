/**
 * The settings of how frozen weights lie on the GPU, which every task that opens a model takes. Refuses other types.
 */
import { z } from "zod";
import { WEIGHT_TYPES, type WeightType } from "../gpu/models/weights.ts";

export const weightSettings = {
  weights: z.enum(WEIGHT_TYPES).default("f32").describe(
    "how frozen matrices lie on the GPU; nf4: linear layers in 4 bits, other matrices as bf16",
  ),
  quant: z.enum(["nf4"]).optional().describe("nf4 is --weights nf4"),
};

/** The one type that both settings name; `quant` comes first. */
export function weightsOf({ weights, quant }: { weights: WeightType; quant?: "nf4" }): WeightType {
  return quant ?? weights;
}
