/**
 * A worker that measures one probe cell of a study while the device goes on: it reads the activations from their cell,
 * writes its own, and answers with its progress and with what went wrong, if anything.
 */
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { messageOf } from "../core/errors.ts";
import { readManifest } from "../core/formats/manifest.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { type FeatureData, readActivations } from "../core/probe/activations.ts";
import { saveProbe } from "../core/probe/stored.ts";
import { PIXELS } from "../core/study/evidence.ts";
import { probeCell, type ProbeCellSettings } from "../core/study/probe_cell.ts";
import { DiskFolder } from "./folder.ts";
import { finishCell, isPlain } from "./study_cell.ts";

export interface ProbeJob {
  /** Paths of the cells. */
  activations: string;
  folder: string;
  pixels: FeatureData;
  settings: ProbeCellSettings;
  /** Of the model, as a stored probe names it: the checkpoint, and what training changed of it. */
  model: { name: string; hash: string; adapter: string | null };
  cell: Record<string, unknown>;
}
export type ProbeAnswer =
  | { share: number }
  | { seconds: number }
  | { failed: string; isInput: boolean };

self.onmessage = async ({ data: job }: MessageEvent<ProbeJob>) => {
  const post = (answer: ProbeAnswer) => self.postMessage(answer);
  try {
    const set = await readActivations(new DiskFolder(job.activations));
    const { result, tensors, facts } = await probeCell(set, job.pixels, job.settings, {
      onProgress: (done, total) => post({ share: done / total }),
    });
    const folder = new DiskFolder(job.folder), { arm, prompt } = job.settings;
    const { hash } = await readManifest(new DiskFolder(job.activations), "activations");
    await saveProbe(
      folder.folder("stored"),
      {
        id: `${arm}-${prompt.id}`.toLowerCase(),
        title: `U1 against U2 in the arm ${arm}`,
        mode: "sound",
        model: job.model,
        content: "synthetic people's details on pictures as watermarks",
        prompt: prompt.text,
        ...facts,
      },
      tensors,
      { parents: { activations: hash } },
    );
    const { seconds, ...rest } = result, { data, dim } = job.pixels;
    await folder.write(PIXELS, encodeSafetensors({ pixels: { shape: [data.length / dim, dim], data } }));
    await finishCell(folder, "probe.json", rest, { seconds, cell: job.cell, seed: job.settings.seed });
    post({ seconds });
  } catch (error) {
    post({ failed: messageOf(error), isInput: isPlain(error) });
  }
};
