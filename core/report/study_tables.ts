/**
 * A study's numbers as CSV, one file a table: what the report shows, digit for digit, for whoever computes on.
 * Fields with a comma, a quote or a line break are quoted (RFC 4180); nothing is rounded.
 */
import type { CellResult } from "./study_input.ts";
import type { Group, StudyReport } from "./study_json.ts";
import type { Mean } from "./study_numbers.ts";

type Value = string | number | boolean | null | undefined;
type Row = Record<string, Value>;

const quoted = (value: Value): string => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** Rows of one form; "" without any. */
export function csv(rows: readonly Row[]): string {
  if (rows.length === 0) return "";
  const names = Object.keys(rows[0]);
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((line) => line.map(quoted).join(",") + "\n").join("");
}

const spread = (name: string, mean: Mean | undefined | null): Row => ({
  [name]: mean?.value,
  [`${name}_low`]: mean?.ci95?.[0],
  [`${name}_high`]: mean?.ci95?.[1],
});

/** File name to content; tables without a row are left out. @param results for what people were asked one by one */
export function studyTables({ groups }: StudyReport, results: readonly CellResult[]): Map<string, string> {
  const all = (rowsOf: (group: Group) => Row[]): Row[] =>
    groups.flatMap((group) =>
      rowsOf(group).map((row) => ({ model: group.model, data: group.data, batch: group.batch, ...row }))
    );
  const tables: Record<string, Row[]> = {
    means: all(({ features, primary }) =>
      features.map(({ arm, prompt, feature, mean, together }) => ({
        ...{ arm, prompt, feature },
        primary: prompt === primary.prompt && feature === primary.feature,
        ...spread("faithful", mean.faithful),
        ...spread("sound", mean.sound),
        ...spread("difference", mean.difference),
        ...spread("uncentred", mean.plain),
        ...spread("accuracy", mean.accuracy),
        ...spread("selectivity", mean.selectivity),
        ...spread("compression", mean.compression),
        null_low: together.null95[0],
        null_high: together.null95[1],
        p_together: together.p,
        difference_p_together: together.difference?.p,
      }))
    ),
    seeds: all(({ features }) =>
      features.flatMap(({ arm, prompt, feature, draws, seeds }) =>
        seeds.map((one) => ({
          ...{ arm, prompt, feature, seed: one.seed, draws },
          ...{ faithful: one.faithful, faithful_accuracy: one.faithful_accuracy, sound: one.sound },
          ...{ sound_low: one.ci95[0], sound_high: one.ci95[1] },
          ...{ null_low: one.null95[0], null_high: one.null95[1] },
          ...{ p: one.p, p_layers: one.p_layers, p_all: one.p_all },
          ...{ difference: one.difference?.value },
          ...{ difference_low: one.difference?.ci95[0], difference_high: one.difference?.ci95[1] },
          ...{ difference_p: one.difference?.p, difference_p_all: one.difference?.p_all },
          ...{ accuracy: one.accuracy, tpr_at_1pct_fpr: one.tpr_at_1pct_fpr },
          ...{ tpr_at_01pct_fpr: one.tpr_at_01pct_fpr, uncentred: one.plain.auroc, uncentred_p: one.plain.p },
          ...{ selectivity: one.selectivity.value, task: one.selectivity.task },
          ...{ control: one.selectivity.control, bits: one.description.bits },
          ...{ control_bits: one.description.control, uniform_bits: one.description.uniform },
          compression: one.description.compression,
        }))
      )
    ),
    blind: all(({ blind }) =>
      blind.map(({ seed, auroc, null95, p }) => ({
        ...{ seed, auroc, null_low: null95[0], null_high: null95[1], p },
      }))
    ),
    reliability: all(({ calibration }) =>
      calibration.flatMap(({ arm, feature, bins }) => bins.map((bin) => ({ arm, feature, ...bin })))
    ),
    calibration: all(({ calibration }) =>
      calibration.map(({ arm, feature, methods, ece, brier, abstained }) => ({
        ...{ arm, feature, methods: methods.join(" ") },
        ...spread("ece", ece),
        ...spread("brier", brier),
        ...spread("abstained", abstained),
      }))
    ),
    power: all(({ power }) =>
      power.map(({ arm, people, scenes, detectable }) => ({
        ...{ arm, people, scenes },
        ...spread("detectable", detectable),
      }))
    ),
    gradients: all(({ gradients }) =>
      (gradients?.rows ?? []).map(({ batch, version, parameters, cosine, norm_ratio }) => ({
        ...{ mini_batch: batch, version, parameters },
        ...spread("cosine", cosine),
        ...spread("norm_ratio", norm_ratio),
      }))
    ),
    gradient_difference: all(({ gradients }) =>
      (gradients?.difference ?? []).map(({ batch, parameters, mean }) => ({
        ...{ mini_batch: batch, parameters },
        ...spread("private_minus_neutral", mean),
      }))
    ),
    alignment: all(({ gradients }) =>
      (gradients?.alignment ?? []).map(({ batch, version, mean }) => ({
        ...{ mini_batch: batch, version },
        ...spread("cosine", mean),
      }))
    ),
    noise_scale: all(({ gradients }) =>
      (gradients?.noise_scale ?? []).flatMap(({ version, seeds }) =>
        seeds.map(({ value, ci95 }, i) => ({
          ...{ version, seed: gradients!.seeds[i], noise_scale: value, low: ci95[0], high: ci95[1] },
        }))
      )
    ),
    trajectory: all(({ gradients }) =>
      (gradients?.trajectory ?? []).map(({ arm, step, parameters, cosine, norm_ratio }) => ({
        ...{ arm, step, parameters },
        ...spread("cosine", cosine),
        ...spread("norm_ratio", norm_ratio),
      }))
    ),
    exposure: all(({ says }) =>
      says.flatMap(({ arm, exposure }) =>
        exposure.map(({ field, question, shown, seen, unseen, difference, p }) => ({
          ...{ arm, field, question, shown, p_of_seeds: p.join(" ") },
          ...spread("seen", seen),
          ...spread("unseen", unseen),
          ...spread("difference", difference),
        }))
      )
    ),
    attacks: all(({ says }) =>
      says.flatMap(({ arm, attacks }) =>
        attacks.map(({ attack, auroc, p }) => ({
          ...{ arm, attack, p_of_seeds: p.join(" ") },
          ...spread("auroc", auroc),
        }))
      )
    ),
    vqa: all(({ arms }) =>
      arms.flatMap(({ name, vqa }) =>
        vqa
          ? (["before", "after"] as const).map((when) => ({
            arm: name,
            when,
            ...spread("exact", vqa[when].exact),
            ...spread("vqa_soft", vqa[when].vqa_soft),
            ...spread("yes_no", vqa[when].yes_no),
            ...spread("loss", vqa[when].loss),
          }))
          : []
      )
    ),
    claims: all(({ claims }) => claims.map((claim) => ({ ...claim }))),
    answers: results.flatMap((entry) =>
      entry.kind === "says"
        ? entry.result.people.map((row) => ({
          model: entry.key.model,
          data: entry.key.data,
          batch: entry.key.batch,
          arm: entry.key.arm,
          seed: entry.key.seed,
          ...row,
        }))
        : []
    ),
  };
  return new Map(
    Object.entries(tables).filter(([, rows]) => rows.length).map((
      [name, rows],
    ) => [`${name}.csv`, csv(rows)]),
  );
}
