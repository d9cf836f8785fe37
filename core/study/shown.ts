/**
 * What an activations cell keeps of a few probed pictures beside its matrices: the pictures and, where image tokens lie on
 * a grid, their activations one by one. Evidence of other probes than linear ones is refused by its form.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { SafetensorsFile } from "../formats/safetensors.ts";
import type { ProbeTensors } from "../probe/stored.ts";

export const SHOWN = "shown.json", SHOWN_TOKENS = "shown.safetensors";

export const shownPictureSchema = z.object({
  id: z.string(),
  person: z.string(),
  set: z.string(),
  width: z.number().int(),
  height: z.number().int(),
  /** Where the watermark lies, in pixels. */
  box: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
  /** The picture without and with the watermark, as data URLs. */
  clean: z.string().startsWith("data:image/"),
  marked: z.string().startsWith("data:image/"),
  /** Rows and columns of image tokens over the whole picture; null where they lie on no grid. */
  grid: z.tuple([z.number().int(), z.number().int()]).nullable(),
});
export type ShownPicture = z.infer<typeof shownPictureSchema>;

export const shownSchema = z.object({
  /** Whose activations `shown.safetensors` holds, (rows * columns, C) a picture by its place in the list. */
  site: z.string(),
  pictures: z.array(shownPictureSchema),
});

export interface Shown {
  site: string;
  pictures: (ShownPicture & { tokens?: Float32Array })[];
}

/** @throws InputError for files that do not fit each other */
export async function readShown(folder: Folder): Promise<Shown> {
  const parsed = shownSchema.safeParse(await readJson(folder, SHOWN));
  if (!parsed.success) {
    throw new InputError(`Cannot read "${folder.path}/${SHOWN}": ${issueOf(parsed.error)}`);
  }
  const { site, pictures } = parsed.data;
  if (!pictures.some(({ grid }) => grid)) return { site, pictures };
  const source = await folder.open(SHOWN_TOKENS);
  try {
    const file = await SafetensorsFile.open(source);
    const out: Shown["pictures"] = [];
    for (const [i, picture] of pictures.entries()) {
      const tokens = picture.grid ? await file.f32(String(i)) : undefined;
      if (picture.grid && tokens!.length % (picture.grid[0] * picture.grid[1])) {
        throw new InputError(`Cannot read "${source.name}": picture ${i} does not fit its grid`);
      }
      out.push({ ...picture, tokens });
    }
    return { site, pictures: out };
  } finally {
    source.close();
  }
}

/**
 * What each token adds to a linear probe's log-odds where the probe reads the mean over tokens: coef . (x - mean) / scale
 * over their number. Their sum and the intercept are the picture's score. @throws InputError for another width
 */
export function evidence(
  tokens: Float32Array,
  count: number,
  { coef, mean, scale }: Omit<ProbeTensors, "intercept">,
): Float64Array {
  const dim = coef.length;
  if (tokens.length !== count * dim) {
    throw new InputError(
      `Cannot show the evidence of ${count} tokens: they hold ${tokens.length} values, expected ${count} x ${dim}`,
    );
  }
  return Float64Array.from({ length: count }, (_, t) => {
    let sum = 0;
    for (let j = 0; j < dim; j++) {
      sum += coef[j] * (tokens[t * dim + j] - (mean?.[j] ?? 0)) / (scale?.[j] ?? 1);
    }
    return sum / count;
  });
}

/** The feature whose probe a heat map can show: the mean over image tokens at the primary one's site, if it is probed. */
export function heatFeature(primary: string, features: Iterable<string>): string | undefined {
  const wanted = `${primary.split("@")[0]}@image-mean`;
  return [...features].find((feature) => feature === wanted);
}
