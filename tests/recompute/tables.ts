/**
 * The CSV tables of a report made again: every column by name, from the report that was made again. A table or a column that is
 * not here is one that nobody checks.
 */
import assert from "node:assert/strict";
import { TOLERANCE } from "./compare.ts";
import type { Remade } from "./report.ts";

type Value = string | number | boolean | null | undefined;
type Row = Record<string, Value>;
// deno-lint-ignore no-explicit-any
type Any = any;

const spread = (name: string, mean: Any): Row => ({
  [name]: mean?.value,
  [`${name}_low`]: mean?.ci95?.[0],
  [`${name}_high`]: mean?.ci95?.[1],
});

const band = ([null_low, null_high]: [number, number]): Row => ({ null_low, null_high });

/** Rows of one group, by table; model, data and batch stand in front of each. */
const MAKERS: Record<string, (group: Any) => Row[]> = {
  means: ({ features, primary }) =>
    features.map(({ arm, prompt, feature, mean, together }: Any) => ({
      ...{ arm, prompt, feature, primary: prompt === primary.prompt && feature === primary.feature },
      ...spread("faithful", mean.faithful),
      ...spread("sound", mean.sound),
      ...spread("difference", mean.difference),
      ...spread("uncentred", mean.plain),
      ...spread("accuracy", mean.accuracy),
      ...spread("selectivity", mean.selectivity),
      ...spread("compression", mean.compression),
      ...band(together.null95),
      ...{ p_together: together.p, difference_p_together: together.difference?.p },
    })),
  seeds: ({ features }) =>
    features.flatMap(({ arm, prompt, feature, draws, seeds }: Any) =>
      seeds.map((row: Any) => ({
        ...{ arm, prompt, feature, seed: row.seed, draws },
        ...{ faithful: row.faithful, faithful_accuracy: row.faithful_accuracy, sound: row.sound },
        ...{ sound_low: row.ci95[0], sound_high: row.ci95[1], ...band(row.null95) },
        ...{ p: row.p, p_layers: row.p_layers, p_all: row.p_all, difference: row.difference?.value },
        ...{ difference_low: row.difference?.ci95[0], difference_high: row.difference?.ci95[1] },
        ...{ difference_p: row.difference?.p, difference_p_all: row.difference?.p_all },
        ...{ accuracy: row.accuracy, uncentred: row.plain.auroc, uncentred_p: row.plain.p },
        ...{ tpr_at_1pct_fpr: row.tpr_at_1pct_fpr, tpr_at_01pct_fpr: row.tpr_at_01pct_fpr },
        ...{
          selectivity: row.selectivity.value,
          task: row.selectivity.task,
          control: row.selectivity.control,
        },
        ...{ bits: row.description.bits, control_bits: row.description.control },
        ...{ uniform_bits: row.description.uniform, compression: row.description.compression },
      }))
    ),
  blind: ({ blind }) => blind.map(({ seed, auroc, null95, p }: Any) => ({ seed, auroc, ...band(null95), p })),
  reliability: ({ calibration }) =>
    calibration.flatMap(({ arm, feature, bins }: Any) => bins.map((bin: Row) => ({ arm, feature, ...bin }))),
  calibration: ({ calibration }) =>
    calibration.map(({ arm, feature, methods, ece, brier, abstained }: Any) => ({
      ...{ arm, feature, methods: methods.join(" ") },
      ...{ ...spread("ece", ece), ...spread("brier", brier), ...spread("abstained", abstained) },
    })),
  power: ({ power }) =>
    power.map(({ arm, people, scenes, detectable }: Any) => ({
      ...{ arm, people, scenes, ...spread("detectable", detectable) },
    })),
  gradients: ({ gradients }) =>
    (gradients?.rows ?? []).map(({ batch, version, parameters, cosine, norm_ratio }: Any) => ({
      ...{ mini_batch: batch, version, parameters },
      ...{ ...spread("cosine", cosine), ...spread("norm_ratio", norm_ratio) },
    })),
  gradient_difference: ({ gradients }) =>
    (gradients?.difference ?? []).map(({ batch, parameters, mean }: Any) => ({
      ...{ mini_batch: batch, parameters, ...spread("private_minus_neutral", mean) },
    })),
  alignment: ({ gradients }) =>
    (gradients?.alignment ?? []).map(({ batch, version, mean }: Any) => ({
      ...{ mini_batch: batch, version, ...spread("cosine", mean) },
    })),
  noise_scale: ({ gradients }) =>
    (gradients?.noise_scale ?? []).flatMap(({ version, seeds }: Any) =>
      seeds.map(({ value, ci95: [low, high] }: Any, i: number) => ({
        ...{ version, seed: gradients.seeds[i], noise_scale: value, low, high },
      }))
    ),
  trajectory: ({ gradients }) =>
    (gradients?.trajectory ?? []).map(({ arm, step, parameters, cosine, norm_ratio }: Any) => ({
      ...{ arm, step, parameters, ...spread("cosine", cosine), ...spread("norm_ratio", norm_ratio) },
    })),
  exposure: ({ says }) =>
    says.flatMap(({ arm, exposure }: Any) =>
      exposure.map(({ field, question, shown, seen, unseen, difference, p }: Any) => ({
        ...{ arm, field, question, shown, p_of_seeds: p.join(" ") },
        ...{ ...spread("seen", seen), ...spread("unseen", unseen), ...spread("difference", difference) },
      }))
    ),
  attacks: ({ says }) =>
    says.flatMap(({ arm, attacks }: Any) =>
      attacks.map(({ attack, auroc, p }: Any) => ({
        ...{ arm, attack, p_of_seeds: p.join(" "), ...spread("auroc", auroc) },
      }))
    ),
  vqa: ({ arms }) =>
    arms.flatMap(({ name, vqa }: Any) =>
      ["before", "after"].map((when) => ({
        ...{
          arm: name,
          when,
          ...spread("exact", vqa[when].exact),
          ...spread("vqa_soft", vqa[when].vqa_soft),
        },
        ...{ ...spread("yes_no", vqa[when].yes_no), ...spread("loss", vqa[when].loss) },
      }))
    ),
  // Text and why are sentences, checked in the report itself.
  claims: ({ claims }) => claims.map(({ claim, answer }: Any) => ({ claim, answer })),
};

/** Columns that hold sentences. */
const SENTENCES = ["text", "because"];

/** Fields of RFC 4180, quotes taken away. */
export function parseCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  let field = "", quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted && c === '"' && text[i + 1] === '"') field += text[++i];
    else if (c === '"') quoted = !quoted;
    else if (!quoted && (c === "," || c === "\n")) {
      rows[rows.length - 1].push(field);
      field = "";
      if (c === "\n") rows.push([]);
    } else field += c;
  }
  return rows.slice(0, -1);
}

/** @returns how many fields with a number were compared @throws AssertionError naming table, row and column */
export function compareTables(tables: ReadonlyMap<string, string>, { report, answers }: Remade): number {
  const made = new Map<string, Row[]>(
    Object.entries(MAKERS).map(([name, rowsOf]) => [
      name,
      report.groups.flatMap((group: Any) =>
        rowsOf(group).map((row) => ({ model: group.model, data: group.data, batch: group.batch, ...row }))
      ),
    ]),
  );
  made.set("answers", answers.map((row) => ({ ...row })));
  const names = [...made].filter(([, rows]) => rows.length).map(([name]) => `${name}.csv`);
  assert.deepEqual(
    [...tables.keys()].sort(),
    names.sort(),
    "a table that nobody makes again, or one that is missing",
  );
  let numbers = 0;
  for (const [file, text] of tables) {
    const name = file.replace(".csv", ""), [head, ...lines] = parseCsv(text), rows = made.get(name)!;
    assert.equal(lines.length, rows.length, `${file} has another number of rows`);
    lines.forEach((fields, i) => {
      const unknown = Object.keys(rows[i]).filter((column) => !head.includes(column));
      assert.deepEqual(unknown, [], `${file} lacks a column`);
      head.forEach((column, k) => {
        if (name === "claims" && SENTENCES.includes(column)) return;
        const what = `${file}, row ${i + 1}, ${column}`, actual = fields[k], value = rows[i][column];
        assert.ok(column in rows[i], `${what} is ${actual}: nobody makes this column again`);
        if (typeof value !== "number" || actual === "") {
          return assert.equal(actual, String(value ?? ""), what);
        }
        const off = Math.abs(Number(actual) - value) / Math.max(1, Math.abs(value));
        assert.ok(off <= TOLERANCE, `${what} is ${actual}, made again ${value}`);
        numbers++;
      });
    });
  }
  return numbers;
}
