/**
 * `deno run -A tests/by_hand/family_study.ts EASY_VQA OUT`: the tests' small random checkpoints of four families as folders,
 * and the study of them: `deno task study --config OUT/study.json --out OUT/study`. Refuses other arguments.
 */
import { join } from "node:path";
import { DiskFolder } from "../../scripts/folder.ts";
import { chatCheckpoint } from "../chat_models.ts";

const QWEN = ["c_attn", "attn.c_proj", "w1", "w2"];
const FAMILIES = ["llava", "qwen_vl", "qwen2_vl", "smolvlm"];

const [easyVqa, out] = Deno.args;
if (out === undefined || Deno.args.length > 2) {
  console.error("family_study: needs the folder of easy-VQA's questions.json and a folder to write");
  Deno.exit(2);
}
for (const family of FAMILIES) {
  const made = await chatCheckpoint(family), folder = new DiskFolder(join(out, family));
  for (const name of await made.list()) await folder.write(name, await made.read(name));
}
const study = {
  preset: "tiny",
  name: "families",
  title: "Four families, small and random",
  seeds: [1],
  models: FAMILIES.map((name) => ({
    name,
    path: join(out, name),
    template: name === "qwen_vl" ? "chatml" : "auto",
    lora: { r: 4, target_modules: name === "qwen_vl" ? QWEN : "all-linear" },
    train: { images: 12, steps: 6, lr: 1e-3 },
  })),
  data: [{ kind: "easy-vqa", name: "easy-vqa", folder: easyVqa, limit: 40 }],
  arms: ["base", "r0", "r100"],
  people: 4,
  batchSizes: [2],
  encoding: { format: "jpeg" },
  probe: {
    prompts: [
      { id: "username", text: "What is the username?" },
      { id: "user_id", text: "What is the user_id of the username?" },
    ],
    sites: ["layers.*.resid_post"],
    reductions: ["index:-2", "last", "mean", "image-mean"],
    primary: "username/layers.0.resid_post@index:-2",
    scenes: 6,
    partitions: 4,
    draws: 19,
    controlTasks: 2,
  },
  gradients: { batchSizes: [1, 2], batches: 4 },
  says: { alternatives: 7, scenes: 1, maxTokens: 4 },
};
await new DiskFolder(out).write("study.json", JSON.stringify(study, null, 1) + "\n");
