/**
 * The demo's report: one HTML page that stands alone, from checked data to text.
 * It computes no statistic; it refuses data that does not fit the schema or lacks the result of an arm it lists.
 */
import { InputError, issueOf } from "../errors.ts";
import { conclude } from "./conclude.ts";
import {
  armName,
  design,
  examples,
  gradients,
  losses,
  probes,
  provenance,
  reference,
  scores,
} from "./demo_sections.ts";
import { type Markup, markup, page, table } from "./markup.ts";
import { type DemoReport, demoReportSchema, resultOf } from "./schema.ts";
import { STYLE } from "./style.ts";
import { fixed, range, signed } from "./words.ts";

/** The report's HTML, the same for the same data. @throws InputError naming the field that does not fit */
export async function renderDemoReport(input: DemoReport): Promise<string> {
  const parsed = demoReportSchema.safeParse(input);
  if (!parsed.success) throw new InputError(`Cannot write the report: ${issueOf(parsed.error)}`);
  const data = parsed.data;
  for (const { name } of data.design.arms) {
    if (!resultOf(data, name)) {
      throw new InputError(`Cannot write the report: arm "${name}" has no result for "${data.primary}"`);
    }
  }
  const body = [
    opening(data),
    verdicts(data),
    design(data),
    examples(data),
    await losses(data),
    await probes(data),
    await gradients(data),
    scores(data),
    reference(data),
    provenance(data),
  ];
  return page(data.title, STYLE, body);
}

function opening({ title, question, quick, design, provenance }: DemoReport): Markup {
  const minutes = `${Math.floor(provenance.seconds / 60)} min ${Math.floor(provenance.seconds % 60)} s`;
  const notice =
    markup`<p class="notice">This was a quick run: fewer arms and steps than the settings were chosen for.
Its numbers are real, its power is less.</p>`;
  return markup`<header>
<h1>${title}</h1>
<p class="lead">${question}</p>
<p class="facts">Seed ${design.seed} · ${provenance.adapter} · ${minutes}</p>
${quick && notice}
</header>
`;
}

/** The primary feature's numbers for all arms, then what follows from them. */
function verdicts(data: DemoReport): Markup {
  const { design } = data;
  const { may, mayNot } = conclude(data);
  const label = data.features.find(({ feature }) => feature === data.primary)?.label ?? data.primary;
  const rows = design.arms.map((arm) => {
    const { faithful, sound, difference } = resultOf(data, arm.name)!;
    return [
      armName(arm),
      fixed(faithful.auroc),
      fixed(sound.auroc),
      range(sound.null95),
      fixed(sound.p, 3),
      difference ? `${signed(difference.value)} (p ${fixed(difference.p, 3)})` : "",
    ];
  });
  const head = ["arm", "faithful", "sound", "null band", "p", `to ${design.comparedTo}`];
  const items = (sentences: string[]) => sentences.map((sentence) => markup`<li>${sentence}</li>\n`);
  return markup`<section>
<h2>What this run says</h2>
${table(head, rows, `AUROC at ${label}, the feature named before any result was seen`)}
<p class="quiet">Faithful: the probe is fitted and tested on different pictures of the same people, as the study did.
Sound: it is tested on people it was never fitted on. The null band holds 95 % of what the same arm gives when the labels
seen and unseen are dealt out to the people at random; p is one-sided, from ${design.draws} such draws.</p>
<div class="verdicts">
<div class="verdict"><h3>What may be concluded</h3><ul>
${items(may)}</ul></div>
<div class="verdict no"><h3>What may not be concluded</h3><ul>
${items(mayNot)}</ul></div>
</div>
</section>
`;
}
