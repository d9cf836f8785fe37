/**
 * A study's report: one page that stands alone, its numbers as JSON and its tables as CSV, the same bytes for the same
 * cells but for `times`. Refuses a study without a single probe cell.
 */
import { type Markup, markup, page, table } from "./markup.ts";
import { controls } from "./study_controls.ts";
import type { StudyInput } from "./study_input.ts";
import { type Group, studyJson, type StudyReport } from "./study_json.ts";
import { examples, gradients, heat, outputs, scatters, training } from "./study_outputs_sections.ts";
import { claims, design, layers, primary, probeAgainstPrompt } from "./study_sections.ts";
import { STUDY_STYLE } from "./study_style.ts";
import { studyTables } from "./study_tables.ts";
import { STYLE } from "./style.ts";
import { list, plural } from "./words.ts";

export interface StudyOutput {
  json: StudyReport;
  html: string;
  /** File name to content. */
  tables: Map<string, string>;
}

/** @throws InputError without any probe result, or where permutations differ */
export async function studyReport(input: StudyInput): Promise<StudyOutput> {
  const json = studyJson(input);
  return { json, html: await studyHtml(json), tables: studyTables(json, input.results) };
}

/** The page of a report's numbers. */
export async function studyHtml(report: StudyReport): Promise<string> {
  const groups: Markup[] = [];
  for (const group of report.groups) groups.push(await groupSection(group, report));
  return page(report.title, STYLE + STUDY_STYLE, [
    opening(report),
    design(report),
    ...groups,
    limits(report),
    reproduce(report),
  ]);
}

function opening({ title, question, missing, times, groups }: StudyReport): Markup {
  const seconds = Object.values(times.seconds).reduce((sum, value) => sum + value, 0);
  const notice = markup`<p class="notice">${plural(missing.length, "cell")} of the study ${
    missing.length > 1 ? "are" : "is"
  } not done: the numbers below are those of the others.</p>
<details><summary>What is missing</summary><ul>${
    missing.map((name) => markup`<li>${name}</li>`)
  }</ul></details>`;
  return markup`<header>
<h1>${title}</h1>
<p class="lead">${question}</p>
<p class="facts">Seeds ${[...new Set(groups.flatMap(({ seeds }) => seeds))].join(", ")} · <span data-time>${
    list(times.adapters)
  } · ${Math.round(seconds / 60)} min of work · ${times.written}</span></p>
${missing.length > 0 && notice}
</header>
`;
}

async function groupSection(group: Group, { comparedTo }: StudyReport): Promise<Markup> {
  return markup`<section>
<h2>${group.model}, ${group.data}, batch ${String(group.batch)}</h2>
${claims(group)}
${primary(group, comparedTo)}
${probeAgainstPrompt(group)}
${examples(group)}
${await layers(group)}
${await controls(group)}
${await gradients(group)}
${await outputs(group)}
${await scatters(group)}
${heat(group)}
${await training(group)}
</section>
`;
}

function limits({ config, groups }: StudyReport): Markup {
  return markup`<section>
<h2>Limits</h2>
<ul>
<li>The people are synthetic and their watermarks are drawn by a program: real private content may be remembered otherwise.</li>
<li>A linear probe finds what is linearly there, and the sound one only what people have in common; exposure ranks names among
candidates from one generator.</li>
<li>Intervals over ${
    plural(groups[0].seeds.length, "seed")
  } are wide, and seeds share one base model and one generator.</li>
<li>p-values are corrected within a seed for ${
    plural(groups[0].features.length, "test")
  } (arms x features), not for the other
statistics on this page.</li>
<li>The text-augmented control edits one or two words by ${
    config.paraphrases === undefined ? "fixed rules" : "a file of paraphrases"
  }, a stand-in for a language model’s paraphrases.</li>
</ul>
</section>
`;
}

function reproduce({ provenance, groups, times, config }: StudyReport): Markup {
  const { commands, versions, hashes, cells } = provenance;
  const facts = (entries: [string, string][]): Markup =>
    markup`<dl>${
      entries.map(([name, value]) => markup`<dt>${name}</dt><dd><code>${value}</code></dd>`)
    }</dl>`;
  const runs = groups.flatMap(({ model, data, batch, arms }) =>
    arms.flatMap(({ name, runs }) =>
      runs.flatMap(({ seed, run }): [string, string][] =>
        run ? [[`${model}, ${data}, batch ${batch}, ${name}, seed ${seed}`, run]] : []
      )
    )
  );
  return markup`<section>
<h2>How to make it again</h2>
<pre><code>${commands.join("\n")}</code></pre>
${facts([["seeds", config.seeds.join(", ")], ...Object.entries(versions), ...Object.entries(hashes)])}
<div data-time>${
    table(
      ["cells", "seconds"],
      Object.entries(times.seconds).map(([kind, value]) => [kind, value.toFixed(1)]),
      `Time by kind of cell, on ${list(times.adapters)}`,
    )
  }</div>
<details><summary>sha256 of what training left</summary>
${facts(runs)}
</details>
<details><summary>Cells</summary>
${facts(cells.map(({ cell, place }) => [place, cell]))}
</details>
<details><summary>The configuration</summary>
<pre><code>${JSON.stringify(config, null, 1)}</code></pre>
</details>
</section>
`;
}
