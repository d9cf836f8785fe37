/**
 * The same device under a name that `isCpu` takes for real hardware, so that a GPU's kernels are run on software as well.
 */
import { Gpu } from "../gpu/device.ts";

export function hardwareTwin(gpu: Gpu): Gpu {
  return new Gpu(gpu.device, { ...gpu.adapter, vendor: "", device: "", description: "as hardware" });
}
