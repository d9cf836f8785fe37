/**
 * Studies that come with the project: the built-in model's, and the published study's settings for its two models and a
 * smaller one. A file may name one and say what differs; it refuses the name of none.
 */
import { InputError, issueOf } from "../errors.ts";
import { TINY_WATERMARK } from "../privacy/watermark.ts";
import { type StudyConfig, type StudyConfigInput, studySchema } from "./config.ts";

/** The parts of llava_v1_5_mix665k that the published study tunes on, and about how many records each has. */
export const PUBLISHED_RECORDS: Record<string, number> = {
  coco: 364_000,
  gqa: 72_000,
  "ocr-vqa": 80_000,
  textvqa: 22_000,
  vg: 86_000,
};

const llavaData = (names: string[]): StudyConfigInput["data"] =>
  names.map((name) => ({ kind: "llava", name, data: `data/${name}.json`, images: "data/images" }));

/** People, pictures, probes and controls as published, with the controls that answer their weaknesses. */
const published = {
  seeds: [42],
  arms: ["base", "r0", "r50", "r100", "swap", "corr0", "known", "who", "reencode", "neutral"],
  people: 20,
  encoding: { format: "jpeg", quality: 95 },
  probe: {
    prompts: [
      { id: "username", text: "What is the username?" },
      { id: "user_id", text: "What is the user_id of the username?" },
    ],
    sites: ["layers.*.resid_post"],
    reductions: ["index:-2", "last", "mean", "image-mean"],
    // 25 pictures with each of 20 people: 500 a set.
    scenes: 25,
    c: 1,
    faithful: { split: "image", testSize: 0.2, seed: 42 },
  },
  questions: { known: "Is the photographer known?", who: "Who took this?" },
  gradients: { batchSizes: [1, 2, 4, 8, 16], batches: 24, trajectory: { arms: ["r100"], steps: 100 } },
} satisfies Partial<StudyConfigInput>;

/** LLaVA-1.5's second stage with LoRA: rates, schedule and length of its authors' script. */
const llavaTraining = {
  template: "vicuna_v1",
  train: {
    epochs: 1,
    lr: 2e-4,
    projectorLr: 2e-5,
    schedule: "cosine",
    warmup: 0.03,
    weightDecay: 0,
    beta2: 0.999,
    clip: 1,
    maxLength: 2048,
    checkpointed: true,
  },
} as const;
const llavaLora = { r: 128, lora_alpha: 256, lora_dropout: 0.05 };

export const PRESETS: Record<string, StudyConfigInput> = {
  tiny: {
    name: "tiny",
    title: "The built-in model, small",
    seeds: [0, 1, 2, 3, 4],
    models: [{
      name: "builtin-tiny",
      path: "builtin:tiny",
      lora: {
        r: 8,
        lora_alpha: 16,
        target_modules: "model\\.(language_model|multi_modal_projector)\\..*(_proj|linear_[12])",
      },
      // Without the tower the positive control does not train.
      trainable: ["^model\\.vision_tower\\.", "^model\\.multi_modal_projector\\."],
      train: { images: 256, steps: 300, lr: 1e-3 },
    }],
    data: [{ kind: "synthetic", name: "shapes", images: 256, heldOut: 32 }],
    arms: ["base", "r0", "r50", "r100", "swap", "corr0", "known", "who"],
    batchSizes: [8],
    tuning: {
      known: { images: 640, steps: 800, lr: 1.5e-3 },
      who: { images: 640, steps: 400, lr: 1.5e-3 },
    },
    people: 8,
    watermark: TINY_WATERMARK,
    probe: {
      prompts: [{ id: "known", text: "is the photographer known" }],
      sites: ["embed@image-mean", "layers.*.resid_post@image-mean", "layers.2.resid_post@last"],
      primary: "known/layers.0.resid_post@image-mean",
      scenes: 24,
      partitions: 8,
      draws: 200,
      faithful: { split: "scene", partitions: 10 },
    },
    gradients: {
      batchSizes: [1, 4, 16],
      batches: 16,
      trajectory: { arms: ["r100", "neutral"], steps: 20 },
    },
  },
  smolvlm: {
    ...published,
    name: "smolvlm",
    title: "SmolVLM-256M, with the published study's settings for LLaVA",
    models: [{
      name: "smolvlm-256m",
      path: "HuggingFaceTB/SmolVLM-256M-Instruct",
      weights: "bf16",
      ...llavaTraining,
      template: "checkpoint",
      lora: { ...llavaLora, target_modules: "model\\.text_model\\..*_proj" },
      trainable: ["^model\\.connector\\."],
    }],
    data: llavaData(["textvqa"]),
    batchSizes: [16],
  },
  llava: {
    ...published,
    name: "llava",
    title: "LLaVA-1.5-7B before instruction tuning, as published",
    models: [{
      name: "llava-1.5-7b",
      path: "lmsys/vicuna-7b-v1.5",
      mmProjector: "liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5",
      visionTower: "openai/clip-vit-large-patch14-336",
      weights: "bf16",
      ...llavaTraining,
      lora: { ...llavaLora, target_modules: "model\\.language_model\\..*_proj" },
      trainable: ["^model\\.multi_modal_projector\\."],
    }],
    data: llavaData(Object.keys(PUBLISHED_RECORDS)),
    batchSizes: [16],
  },
  qwen_vl: {
    ...published,
    name: "qwen_vl",
    title: "Qwen-VL-Chat, as published",
    models: [{
      name: "qwen-vl-chat",
      path: "Qwen/Qwen-VL-Chat",
      weights: "bf16",
      template: "chatml",
      lora: {
        r: 64,
        lora_alpha: 16,
        lora_dropout: 0.05,
        target_modules: ["c_attn", "attn.c_proj", "w1", "w2"],
      },
      train: {
        epochs: 1,
        lr: 1e-5,
        schedule: "cosine",
        warmup: 0.01,
        weightDecay: 0.1,
        beta2: 0.95,
        clip: 1,
        maxLength: 2048,
        checkpointed: true,
      },
    }],
    data: llavaData(Object.keys(PUBLISHED_RECORDS)),
    batchSizes: [12],
  },
};

type Json = Record<string, unknown>;

/**
 * A study from a parsed file: the preset that it names, if any, with whatever else it says instead.
 * @throws InputError naming the file and the fields that do not fit
 */
export function parseStudy(json: unknown, name: string): StudyConfig {
  const { preset, ...rest } = (json ?? {}) as Json;
  if (preset !== undefined && !(typeof preset === "string" && Object.hasOwn(PRESETS, preset))) {
    throw new InputError(
      `Cannot use "${name}": preset is ${JSON.stringify(preset)}, expected one of ${
        Object.keys(PRESETS).join(", ")
      }`,
    );
  }
  const parsed = studySchema.safeParse(preset === undefined ? rest : merged(PRESETS[preset as string], rest));
  if (!parsed.success) throw new InputError(`Cannot use "${name}": ${issueOf(parsed.error)}`);
  const { arms, tuning } = parsed.data;
  // What a preset says of arms that the file leaves out is left out as well; the file's own words are not.
  const isOwn = (arm: string) => preset === undefined || Object.hasOwn(rest.tuning ?? {}, arm);
  for (const arm of Object.keys(tuning)) if (!arms.includes(arm) && !isOwn(arm)) delete tuning[arm];
  return parsed.data;
}

/** Objects are merged, lists replaced; in a list of named objects each is merged with its namesake. */
function merged(base: unknown, over: unknown): unknown {
  if (isObject(base) && isObject(over)) {
    const out: Json = { ...base };
    for (const [key, value] of Object.entries(over)) out[key] = merged(base[key], value);
    // Another checkpoint is not made of the first one's parts.
    if ("path" in over) {
      for (const part of ["mmProjector", "visionTower"]) if (!(part in over)) delete out[part];
    }
    return out;
  }
  if (Array.isArray(base) && Array.isArray(over)) {
    return over.map((entry) => {
      const namesake = isObject(entry) && base.find((other) => isObject(other) && other.name === entry.name);
      return namesake && typeof (entry as Json).name === "string" ? merged(namesake, entry) : entry;
    });
  }
  return over;
}

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
