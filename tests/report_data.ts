/**
 * A made-up demo report for the tests: every number in it is invented and none was ever measured.
 * Its shapes and sizes are those of a real run.
 */
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { Random } from "../core/random.ts";
import type { DemoReport, Interval } from "../core/report/schema.ts";

const ARMS = [
  ["base", "control", "nothing: the model as it was pre-trained", 0, 0.63, 0.49],
  ["r0", "control", "256 pictures without watermarks", 600, 0.6, 0.51],
  [
    "r100",
    "watermark",
    "the same pictures, each with the watermark of one of 8 people (U1)",
    600,
    0.58,
    0.52,
  ],
  [
    "corr0",
    "reading",
    "as r100 but with 8 other people (U0), whose watermark hints at the answer",
    600,
    0.85,
    0.54,
  ],
  ["known", "positive", "the question “is the photographer known”, yes for U1", 1400, 0.94, 0.91],
] as const;

/** Base64 of a small grey picture with seeded noise. */
async function picture(random: Random, marked: boolean): Promise<string> {
  const out = blankPicture(64, 64);
  for (let i = 0; i < out.data.length; i++) {
    const [x, y] = [Math.floor(i / 3) % 64, Math.floor(i / 192)];
    const inText = marked && x > 4 && x < 36 && y > 8 && y < 44 && random.int(3) === 0;
    out.data[i] = inText ? 235 : 60 + 40 * Math.sin(x / 9 + i % 3) + 30 * Math.cos(y / 7) + random.int(8);
  }
  const bytes = await encodeImage(out, "png");
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** The made-up data; the same every time. */
export async function madeUpReport(): Promise<DemoReport> {
  const random = new Random(0, "made-up report");
  const layers = [0, 1, 2, 3].flatMap((layer) =>
    (["image-mean", "last"] as const).map((reduction) => ({
      feature: `layers.${layer}.resid_post@${reduction}`,
      label: `L${layer} ${reduction === "last" ? "last" : "image"}`,
    }))
  );
  const perturbations = [
    { key: "private", label: "private text", role: "private" as const },
    { key: "neutral", label: "neutral text", role: "neutral" as const },
    { key: "reencoded", label: "re-encoded", role: "other" as const },
    { key: "jitter", label: "brightness ±10 %", role: "other" as const },
  ];
  const around = (mean: number, half: number) => ({ mean, ci95: [mean - half, mean + half] as Interval });
  return {
    title: "Afterimage: what does a small model remember of watermarks?",
    question:
      "Does a vision-language model that is fine-tuned on watermarked pictures keep a trace of whose watermark it saw, " +
      "although the watermark never helps it to answer?",
    quick: false,
    design: {
      people: [
        { set: "U1", count: 8, words: "drawn into the training pictures of r100 and known" },
        { set: "U2", count: 8, words: "never in any training picture" },
        { set: "U0", count: 8, words: "drawn into the training pictures of corr0 alone" },
      ],
      scenes: 24,
      seed: 0,
      partitions: 20,
      draws: 200,
      arms: ARMS.map(([name, role, words, steps]) => ({ name, role, words, steps })),
      comparedTo: "r0",
      parameters: 349_888,
      notes: ["All arms start from the same base model and see their pictures through the same encoder."],
    },
    features: layers,
    primary: "layers.1.resid_post@image-mean",
    examples: await Promise.all([1, 2, 3].map(async (i) => ({
      caption: `scene ${i}, “what color is the ring”`,
      clean: await picture(random.split(i), false),
      marked: await picture(random.split(i), true),
    }))),
    losses: ARMS.filter(([, , , steps]) => steps > 0).map(([arm, , , steps], which) => ({
      arm,
      points: Array.from({ length: steps }, (_, step) => ({
        step,
        loss: 0.1 + 0.2 * which + 1.5 * Math.exp(-step / 90) + 0.25 * random.float(),
      })),
    })),
    results: ARMS.flatMap(([arm, role, , , faithful, sound]) =>
      layers.map(({ feature }) => {
        const primary = feature === "layers.1.resid_post@image-mean";
        const shift = () => primary ? 0 : random.uniform(-0.03, 0.03);
        const half = role === "reading" || role === "positive" ? 0.24 : 0.15;
        return {
          arm,
          feature,
          faithful: { auroc: faithful + shift() },
          sound: {
            auroc: sound + shift(),
            null95: [0.5 - half, 0.5 + half] as Interval,
            p: role === "positive" ? 1 / 201 : 0.42,
          },
          ...(arm !== "base" && arm !== "r0" && {
            difference: {
              value: sound - 0.51,
              null95: [-0.19, 0.2] as Interval,
              p: role === "positive" ? 1 / 201 : 0.4,
            },
          }),
        };
      })
    ),
    gradients: {
      words:
        "The gradient of the base model’s LoRA weights on clean pictures against that on the same pictures changed.",
      perturbations,
      rows: [1, 2, 4, 8].map((batch, i) => ({
        batch,
        batches: 24,
        cosines: {
          private: around(0.82 - 0.01 * i, 0.05),
          neutral: around(0.81 - 0.01 * i, 0.05),
          reencoded: around(0.96, 0.01),
          jitter: around(0.97, 0.01),
        },
        difference: around(0.01, 0.06),
      })),
    },
    scores: await Promise.all([true, false].map(async (seen) => ({
      caption: seen ? "a person of U1 on a held-out scene" : "a person of U2 on a held-out scene",
      seen,
      probe: "known-sound",
      feature: "layers.1.resid_post@image-mean",
      score: seen ? 2.31 : -1.72,
      probability: seen ? 0.91 : 0.15,
      png: await picture(random.split("score", seen ? 1 : 0), true),
    }))),
    reference: {
      words:
        "Eight runs made while the demo was written, each with its own people, scenes and LoRA start, on one base model.",
      seeds: 8,
      rows: ARMS.map(([arm, role, , , faithful, sound]) => ({
        arm,
        feature: "layers.1.resid_post@image-mean",
        faithful: around(faithful, 0.04),
        sound: around(sound, 0.06),
        found: role === "positive" ? 8 : 0,
      })),
    },
    provenance: {
      command: "deno task demo --seed 0",
      adapter: "llvmpipe (made up)",
      seconds: 288.4,
      stages: [{ name: "people and watermarks", seconds: 4.2 }, { name: "arm known", seconds: 88.1 }],
      versions: { afterimage: "0.1.0", deno: "2.9.6" },
      hashes: { "base model": "ab".repeat(32), "people U1": "cd".repeat(32) },
    },
  };
}
