/**
 * The house's own rules: imports point one way, the platform stays at the edges, files are short and say what they are.
 * Refuses a lock file with addresses in it and any path of somebody's machine.
 */
import assert from "node:assert/strict";
import { dirname, join, normalize } from "node:path";

const ROOT = new URL("..", import.meta.url).pathname;
const SOURCES = ["core", "functions", "gpu", "scripts"], MOST_LINES = 400;

interface SourceFile {
  /** From the project's root, with "/" between parts. */
  path: string;
  text: string;
}

async function* walk(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(join(ROOT, folder))) {
    const path = join(folder, name);
    if (!isDirectory) yield path;
    else if (!["node_modules", "runs", ".git"].includes(name)) yield* walk(path);
  }
}

async function filesOf(folders: string[], kind: RegExp): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for (const folder of folders) {
    for await (const path of walk(folder)) {
      if (kind.test(path)) files.push({ path, text: await Deno.readTextFile(join(ROOT, path)) });
    }
  }
  return files.sort((a, b) => a.path < b.path ? -1 : 1);
}

/** What each top folder may import from. */
const MAY_IMPORT: Record<string, string[]> = {
  core: ["core"],
  gpu: ["gpu", "core"],
  functions: ["functions", "core"],
  scripts: ["scripts", "functions", "gpu", "core", "deno.json"],
};
/** What every module of this file says it imports, static or not. */
function importsOf({ text }: SourceFile): string[] {
  return Array.from(text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"/g), ([, name]) => name);
}

const targetOf = ({ path }: SourceFile, name: string) => normalize(join(dirname(path), name));

function wrongImports(file: SourceFile): string[] {
  const top = file.path.split("/")[0];
  return importsOf(file).filter((name) => {
    if (name.startsWith("node:")) return top !== "scripts";
    return name.startsWith(".") && !MAY_IMPORT[top].includes(targetOf(file, name).split("/")[0]);
  });
}

/** Inside gpu/: runtime and ops 0, layers 1, families 2, and 3 for what lies beside the runtime and reaches these. */
function gpuLevel(path: string, files: Map<string, SourceFile>): number {
  const level = ["gpu/ops/", "gpu/nn/", "gpu/models/"].findIndex((folder) => path.startsWith(folder));
  if (level >= 0) return level;
  const seen = new Set<string>(), waiting = [path];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const file = files.get(next);
    if (!file || seen.has(next) || next.startsWith("gpu/ops/")) continue;
    seen.add(next);
    if (/^gpu\/(nn|models)\//.test(next)) return 3;
    waiting.push(
      ...importsOf(file).filter((name) => name.startsWith(".")).map((name) => targetOf(file, name)),
    );
  }
  return 0;
}

function upwardImports(file: SourceFile, files: Map<string, SourceFile>): string[] {
  if (!file.path.startsWith("gpu/")) return [];
  const own = gpuLevel(file.path, files);
  return importsOf(file).filter((name) =>
    name.startsWith("../") && targetOf(file, name).startsWith("gpu/") &&
    gpuLevel(targetOf(file, name), files) > own
  );
}

const withoutComments = (text: string) =>
  text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "");

/** Names of the platform in places that must run without it. */
function platformNames({ path, text }: SourceFile): string[] {
  const code = withoutComments(text), top = path.split("/")[0];
  const found: string[] = top === "scripts" || path === "functions/serve.ts"
    ? []
    : code.match(/\bDeno\.\w+/g) ?? [];
  if (top === "core" || top === "functions") {
    found.push(...code.match(/\bGPU[A-Z]\w*|\bnavigator\.gpu\b/g) ?? []);
  }
  return found;
}

/** What code that makes a report's numbers again may take from the code that made them: streams, names of arms and of files. */
const SHARED = ["core/random.ts", "core/study/arms.ts", "core/study/evidence.ts"];

/** Modules that it takes more from than a type. */
function sharedCode(file: SourceFile): string[] {
  const names = Array.from(
    file.text.matchAll(/^import (?!type )[^;]*?from "([^"]+)";/gm),
    ([, name]) => targetOf(file, name),
  );
  return names.filter((name) => /^(core|gpu|functions|scripts)\//.test(name) && !SHARED.includes(name));
}

const hasHeader = ({ path, text }: SourceFile) =>
  path.endsWith(".wgsl") ? text.startsWith("// ") : /^\/\*\*\n \* \S/.test(text);

const linesOf = ({ text }: SourceFile) => text.trimEnd().split("\n").length;

/** Absolute paths of a home, a work or a scratch folder. */
const machinePaths = ({ text }: SourceFile) =>
  text.match(/(?<![\w.:\/-])\/(?:work|root|home|Users|tmp)\/[\w.-]+/g) ?? [];

const sources = await filesOf(SOURCES, /\.(ts|js|wgsl)$/);
const modules = sources.filter(({ path }) => !path.endsWith(".wgsl"));

/** "path: finding" for everything that a rule found in some files. */
const findings = (files: SourceFile[], rule: (file: SourceFile) => string[]) =>
  files.flatMap((file) => rule(file).map((finding) => `${file.path}: ${finding}`));

Deno.test("imports point one way: functions -> core <- gpu <- scripts", () => {
  assert.deepEqual(findings(modules, wrongImports), []);
  const byPath = new Map(modules.map((file) => [file.path, file]));
  assert.deepEqual(findings(modules, (file) => upwardImports(file, byPath)), []);
  const importers = modules.filter((file) => importsOf(file).some((name) => name.startsWith(".")));
  assert(importers.length > modules.length / 2, "hardly any import was found: the pattern is broken");
});

Deno.test("core, gpu and the service know no Deno, core and the service no GPU", () => {
  assert.deepEqual(findings(modules, platformNames), []);
});

Deno.test("files are short: none above 400 lines, the median near 100", () => {
  const lines = sources.map((file) => ({ path: file.path, lines: linesOf(file) }));
  assert.deepEqual(lines.filter(({ lines }) => lines > MOST_LINES), []);
  const median = lines.map(({ lines }) => lines).sort((a, b) => a - b)[Math.floor(lines.length / 2)];
  assert(median >= 50 && median <= 150, `the median file has ${median} lines`);
});

Deno.test("what makes a report's numbers again shares no code with what made them", async () => {
  const files = await filesOf(["tests/recompute"], /\.ts$/);
  assert.deepEqual(findings(files, sharedCode), []);
  assert(files.length > 10, "there is hardly any");
});

Deno.test("every file opens by saying what it is", async () => {
  const tests = await filesOf(["tests"], /\.ts$/);
  const silent = [...sources, ...tests].filter((file) => !hasHeader(file));
  assert.deepEqual(silent.map(({ path }) => path), []);
});

Deno.test("the lock file holds no address", async () => {
  const lock = await Deno.readTextFile(join(ROOT, "deno.lock"));
  assert.deepEqual(lock.match(/[a-z]+:\/\/\S+/g) ?? [], []);
});

Deno.test("no file names a path of somebody's machine", async () => {
  const kind = /\.(ts|js|wgsl|py|json|jsonl|md|toml|html|lock)$/;
  const texts = await filesOf([...SOURCES, "docs", "models", "tests"], kind);
  for await (const { name, isFile } of Deno.readDir(ROOT)) {
    if (isFile && kind.test(name)) {
      texts.push({ path: name, text: await Deno.readTextFile(join(ROOT, name)) });
    }
  }
  assert.deepEqual(findings(texts, machinePaths), []);
});

Deno.test("the rules notice what they are for", () => {
  const line = (path: string, text: string): SourceFile => ({ path, text });
  assert.deepEqual(wrongImports(line("core/a.ts", 'import { x } from "../gpu/device.ts";')), [
    "../gpu/device.ts",
  ]);
  assert.deepEqual(wrongImports(line("core/a/b.ts", 'await import("../../scripts/cli.ts")')), [
    "../../scripts/cli.ts",
  ]);
  assert.deepEqual(wrongImports(line("core/a.ts", 'import "node:fs";')), ["node:fs"]);
  assert.deepEqual(wrongImports(line("gpu/train.ts", 'import { z } from "zod"; import "./nn/lora.ts";')), []);
  const upward = [
    line(
      "gpu/ops/a.ts",
      'import type { L } from "../nn/layers.ts"; import "../train.ts"; import "../tape.ts";',
    ),
    line("gpu/nn/layers.ts", 'import "../ops/a.ts"; import "../models/b.ts";'),
    line("gpu/train.ts", 'import "./nn/layers.ts";'),
    line("gpu/tape.ts", 'import "./ops/a.ts";'),
  ];
  const byPath = new Map(upward.map((file) => [file.path, file]));
  assert.deepEqual(upwardImports(upward[0], byPath), ["../nn/layers.ts", "../train.ts"]);
  assert.deepEqual(platformNames(line("gpu/a.ts", "// Deno.args\nDeno.exit(1)")), ["Deno.exit"]);
  assert.deepEqual(platformNames(line("core/a.ts", "let b: GPUBuffer; /* GPUDevice */")), ["GPUBuffer"]);
  assert(!hasHeader(line("core/a.ts", 'import "zod";')) && !hasHeader(line("gpu/a.wgsl", "struct A {}")));
  const again = 'import type { A } from "../../core/a.ts";\nimport {\n  b,\n} from "../../core/probe/b.ts";';
  assert.deepEqual(sharedCode(line("tests/recompute/a.ts", again)), ["core/probe/b.ts"]);
  const paths = ["work", "home"].map((name) => `/${name}/someone`);
  assert.deepEqual(
    machinePaths(line("a.md", `see ${paths[0]}, "${paths[1]}" and https://host${paths[0]}`)),
    paths,
  );
});
