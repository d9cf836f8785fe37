/**
 * Low-rank adapters beside linear layers, and modules trained whole, by peft's rules and under peft's names. Refuses a
 * target that matches no module or one that is no linear layer, and an adapter file that does not fit the modules.
 */
import { InputError } from "../../core/errors.ts";
import { adapterKey, type AdapterTensor, type LoraConfig, savedKey } from "../../core/formats/peft.ts";
import { isAllLinear, isSaved, isTarget, rankOf } from "../../core/formats/peft_rules.ts";
import { Random } from "../../core/random.ts";
import { sizeOf } from "../../core/shape.ts";
import type { Gpu } from "../device.ts";
import { type Linear, Param, type Registry } from "./params.ts";

/** What of a model is needed to train some of it whole. */
interface Tree {
  readonly registry: Registry;
  head: Param;
}

/** Declares A and B beside every targeted layer and returns them in order. @throws InputError when nothing matches */
export function attachLora(registry: Registry, config: LoraConfig, group = "lora"): Param[] {
  const params: Param[] = [];
  for (const layer of targetsOf(registry, config)) {
    if (!computes(layer)) continue;
    const { scaling } = rankOf(layer.name, config), [a, b] = matricesOf(layer, config);
    a.group = b.group = group;
    layer.adapter = { a, b, scaling, dropout: config.lora_dropout };
    params.push(a, b);
  }
  if (params.length === 0) {
    throw new InputError(
      `Cannot attach adapters: target_modules ${
        JSON.stringify(config.target_modules)
      } matches no linear layer`,
    );
  }
  return params;
}

/** Matrices that peft has beside layers which never compute with them: written and read, and on no device. */
export function idleLora(registry: Registry, config: LoraConfig): Param[] {
  return targetsOf(registry, config).filter((layer) => !computes(layer)).flatMap((layer) =>
    matricesOf(layer, config)
  );
}

const computes = ({ weight, bypassed }: Linear) => weight.used && !bypassed;

function matricesOf({ name, weight }: Linear, config: LoraConfig): [Param, Param] {
  const [N, K] = weight.shape, { r } = rankOf(name, config);
  return [new Param(adapterKey(name, "A"), [r, K]), new Param(adapterKey(name, "B"), [N, r])];
}

/** The linear layers that an adapter goes beside. @throws InputError for a target that is none */
export function targetsOf(registry: Registry, config: LoraConfig): Linear[] {
  const odd = isAllLinear(config)
    ? undefined
    : [...modulesOf(registry)].find((module) => !registry.linears.has(module) && isTarget(module, config));
  if (odd !== undefined) {
    throw new InputError(
      `Cannot attach adapters: target_modules ${
        JSON.stringify(config.target_modules)
      } matches "${odd}", which is no linear layer inside the model`,
    );
  }
  return [...registry.linears.values()].filter(({ name }) => isTarget(name, config));
}

/** Every module's name: what stands in front of the parameters' last parts, and tied ones. */
function modulesOf({ params, ties }: Registry): Set<string> {
  const modules = new Set<string>();
  for (const name of [...params.keys(), ...ties.keys()]) {
    for (let end = name.lastIndexOf("."); end > 0; end = name.lastIndexOf(".", end - 1)) {
      modules.add(name.slice(0, end));
    }
  }
  return modules;
}

/**
 * Marks what modules_to_save trains whole and returns it in order. A head or table of tied embeddings that is saved is
 * a copy of its own from then on, as it is in peft. @throws InputError for a name that matches nothing or a list
 */
export function attachSaved(model: Tree, config: LoraConfig, group = "full"): Param[] {
  const { registry } = model, modules = [...modulesOf(registry)].filter((module) => isSaved(module, config));
  const refuse = (why: string) => new InputError(`Cannot train modules_to_save: ${why}`);
  for (const name of config.modules_to_save ?? []) {
    if (!modules.some((module) => module.endsWith(name))) throw refuse(`"${name}" matches no module`);
  }
  const names = [...registry.params.keys()];
  for (const module of modules) {
    const inside = names.filter((name) => name.startsWith(`${module}.`));
    if (inside.length && inside.every((name) => /^\d+\./.test(name.slice(module.length + 1)))) {
      throw refuse(`"${module}" is a list of modules, expected modules`);
    }
    const outer = modules.find((other) => module.startsWith(`${other}.`));
    if (outer) throw refuse(`"${module}" lies inside "${outer}", which is trained as well`);
    const adapted = [...registry.linears.keys()].find((name) =>
      (name === module || name.startsWith(`${module}.`)) && isTarget(name, config)
    );
    if (adapted) throw refuse(`"${module}" would get an adapter at "${adapted}" as well`);
  }
  untie(model, modules);
  const chosen = [...registry.params.values()].filter(({ name }) =>
    modules.some((module) => name.startsWith(`${module}.`))
  );
  for (const param of chosen) param.group = group;
  return chosen;
}

/** Gives the head a matrix of its own where only one of a tied pair is to change, or each on its own. */
function untie(model: Tree, modules: readonly string[]): void {
  const { registry } = model;
  for (const [name, source] of registry.ties) {
    if (![name, source].some((tied) => modules.some((module) => tied.startsWith(`${module}.`)))) continue;
    model.head = new Param(name, model.head.shape);
    registry.params.set(name, model.head);
    registry.ties.delete(name);
    registry.copies.set(name, source);
  }
}

/**
 * The first values of A or B: A uniform within 1 / sqrt(K) (Kaiming with a = sqrt(5)) and B zero, or what
 * init_lora_weights asks for; every matrix has its own stream. @throws InputError for a start that needs data
 */
export function loraStart(
  { name, shape }: Param,
  config: LoraConfig,
  seed: number,
): Float32Array<ArrayBuffer> {
  const values = new Float32Array(sizeOf(shape)), start = config.init_lora_weights ?? true;
  const isA = name.endsWith(".lora_A.weight"), random = new Random(seed, `lora/${name}`);
  if (start === "eva" || start === "orthogonal") {
    throw new InputError(
      `Cannot start adapters with init_lora_weights "${start}": expected true, false or gaussian`,
    );
  }
  if (isA && start === "gaussian") {
    for (let i = 0; i < values.length; i++) values[i] = random.normal() / shape[0];
  } else if (isA || start === false) {
    const bound = 1 / Math.sqrt(shape[1]);
    for (let i = 0; i < values.length; i++) values[i] = random.uniform(-bound, bound);
  }
  return values;
}

/** Writes the first values of placed adapters. */
export function initLora(gpu: Gpu, params: readonly Param[], config: LoraConfig, seed: number): void {
  for (const param of params) gpu.write(param.tensor, loraStart(param, config, seed));
}

/** The key of an adapter's matrix or of a module trained whole in peft's file. */
export function keyOf({ name }: Param): string {
  return name.startsWith("base_model.") ? name : savedKey(name);
}

/**
 * Copies a read adapter into placed parameters and returns what belongs to `idle` ones.
 * @throws InputError naming a key that is missing, extra or misshapen
 */
export function loadLora(
  gpu: Gpu,
  params: readonly Param[],
  tensors: ReadonlyMap<string, AdapterTensor>,
  idle: readonly Param[] = [],
): Map<string, AdapterTensor> {
  const known = new Set([...params, ...idle].map(keyOf)), kept = new Map<string, AdapterTensor>();
  const extra = [...tensors.keys()].filter((key) => !known.has(key));
  if (extra.length) {
    throw new InputError(`Cannot load the adapter: unexpected "${extra.slice(0, 5).join('", "')}"`);
  }
  for (const param of [...params, ...idle]) {
    const key = keyOf(param), found = tensors.get(key), waits = idle.includes(param);
    if (!found && waits) continue;
    if (!found) throw new InputError(`Cannot load the adapter: missing "${key}"`);
    if (found.shape.join() !== param.shape.join()) {
      throw new InputError(
        `Cannot load the adapter: "${key}" is (${found.shape.join(", ")}), expected (${
          param.shape.join(", ")
        })`,
      );
    }
    if (waits) kept.set(key, found);
    else gpu.write(param.tensor, found.data);
  }
  return kept;
}
