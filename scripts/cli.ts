/**
 * One way to start a task: a zod schema gives the flags, their help, the check of `--config FILE` and the defaults.
 * A flag beats the file, the file beats the default. Wrong input is one line on stderr and exit code 2.
 */
import process from "node:process";
import { Command, Option } from "commander";
import { z } from "zod";
import { InputError, Interrupted, messageOf } from "../core/errors.ts";
import { VERSION } from "../core/formats/manifest.ts";

export interface Task<S extends z.ZodObject> {
  /** As typed after `deno task`. */
  name: string;
  summary: string;
  /** Keys become `--kebab-case` flags; `.describe()` is their help; objects are set in the config file only. */
  schema: S;
  /** The flag that names a file of settings, where `config` is taken. */
  settingsFlag?: string;
  /** Positional arguments, shown in the usage: "[images...]". */
  args?: string;
  examples?: string[];
  run(config: z.infer<S>, args: string[]): Promise<void>;
}

/** Parses, runs, and exits: 0 done, 2 wrong input, 130 interrupted, 1 anything else (with its stack). */
export async function runTask<S extends z.ZodObject>(
  task: Task<S>,
  argv: string[] = Deno.args,
): Promise<void> {
  try {
    const command = new Command(`deno task ${task.name}`).description(task.summary).version(VERSION)
      .option(`--${task.settingsFlag ?? "config"} <file>`, "JSON file with any of the settings below");
    if (task.args) command.arguments(task.args);
    for (const [key, type] of Object.entries(task.schema.shape)) {
      command.addOption(flagOf(key, type as z.ZodType));
    }
    if (task.examples) {
      command.addHelpText(
        "after",
        "\nExamples:\n" + task.examples.map((line) => `  ${line}\n`).join(""),
      );
    }
    command.allowExcessArguments(false).exitOverride();
    command.parse(argv, { from: "user" });
    await task.run(effectiveConfig(task.schema, command, task.settingsFlag), command.args);
  } catch (thrown) {
    Deno.exitCode = exitCodeOf(thrown);
    if (thrown instanceof InputError || thrown instanceof Interrupted) {
      console.error(`${task.name}: ${thrown.message}`);
    } else if (isRefusal(thrown)) {
      console.error(`${task.name}: Cannot go on: ${thrown.message}`);
    } else if (Deno.exitCode === 1) console.error(thrown instanceof Error ? thrown.stack : messageOf(thrown));
  }
  Deno.exit();
}

function exitCodeOf(thrown: unknown): number {
  const { code: given } = (thrown ?? {}) as { code?: unknown };
  const code = typeof given === "string" ? given : undefined; // a DOMException's is a number
  if (code === "commander.helpDisplayed" || code === "commander.version" || code === "commander.help") {
    return 0;
  }
  if (thrown instanceof InputError || code?.startsWith("commander.") || isRefusal(thrown)) return 2;
  return thrown instanceof Interrupted ? 130 : 1;
}

/** What the system refuses (a path that cannot be written, a full disk) names its path, so one line says all. */
export const isRefusal = (thrown: unknown): thrown is Error =>
  thrown instanceof Error && /\(os error \d+\)/.test(thrown.message);

/** The schema's leaf type and default, through optional(), default() and the like. */
function unwrap(type: z.ZodType): { inner: z.ZodType; fallback?: unknown; optional: boolean } {
  let inner = type, fallback: unknown, optional = false;
  for (;;) {
    const def = inner.def as { type: string; innerType?: z.ZodType; defaultValue?: unknown };
    if (def.type === "default" || def.type === "prefault") fallback = def.defaultValue;
    if (def.type === "optional" || def.type === "nullable") optional = true;
    if (!def.innerType) return { inner, fallback, optional };
    inner = def.innerType;
  }
}

const kebab = (key: string) => key.replaceAll("_", "-").replace(/[A-Z]/g, (c) => "-" + c.toLowerCase());

function flagOf(key: string, type: z.ZodType): Option {
  const { inner, fallback } = unwrap(type);
  const kind = (inner.def as { type: string }).type;
  const help = type.description ?? inner.description ?? "";
  const flag = `--${kebab(key)}`;
  if (kind === "boolean") return new Option(fallback === true ? `--no-${kebab(key)}` : flag, help);
  const noun = kind === "number" ? "number" : kind === "array" ? "a,b" : "value";
  const option = new Option(
    `${flag} <${noun}>`,
    fallback === undefined ? help : `${help} (default ${JSON.stringify(fallback)})`,
  );
  if (kind === "enum") option.choices((inner as z.ZodEnum).options.map(String));
  return option;
}

/** Text from the command line as the schema's type wants it. */
function fromText(text: string, type: z.ZodType): unknown {
  const { inner } = unwrap(type);
  const def = inner.def as { type: string; element?: z.ZodType };
  if (def.type === "number") return text.trim() === "" ? NaN : Number(text);
  if (def.type === "array") {
    return text === "" ? [] : text.split(",").map((part) => fromText(part, def.element!));
  }
  if (def.type === "object" || def.type === "record" || def.type === "union") {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }
  return text;
}

function effectiveConfig<S extends z.ZodObject>(
  schema: S,
  command: Command,
  settingsFlag = "config",
): z.infer<S> {
  const { [settingsFlag]: file, ...flags } = command.opts() as Record<string, unknown>;
  let settings: Record<string, unknown> = {};
  if (file) {
    try {
      settings = JSON.parse(Deno.readTextFileSync(String(file)));
    } catch (error) {
      throw new InputError(`Cannot read the config "${file}": ${messageOf(error)}`);
    }
  }
  for (const [key, type] of Object.entries(schema.shape)) {
    const name = kebab(key).replace(/-([a-z])/g, (_, c: string) => c.toUpperCase());
    if (command.getOptionValueSource(name) !== "cli") continue;
    const value = flags[name];
    settings[key] = typeof value === "string" ? fromText(value, type as z.ZodType) : value;
  }
  const parsed = schema.strict().safeParse(settings);
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => {
      const flag = issue.path.length
        ? `--${kebab(String(issue.path[0]))}${issue.path.slice(1).map((p) => `.${String(p)}`).join("")}: `
        : "";
      return flag + plainly(issue.message);
    });
    throw new InputError(`Cannot use these settings: ${issues.join("; ")}`);
  }
  return parsed.data as z.infer<S>;
}

/** The schema's words, but for settings that are not there and texts that are no numbers. */
function plainly(message: string): string {
  if (/, received undefined$/.test(message)) return "it is missing";
  return /, received NaN$/.test(message) ? "it is no number" : message;
}

/** A signal that fires on the first Ctrl-C or SIGTERM; a second one ends the process at once. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(130);
    console.error("\nStopping after this step; press Ctrl-C again to stop at once");
    controller.abort();
  };
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGTERM", stop);
  return controller.signal;
}
