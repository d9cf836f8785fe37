/**
 * What an answer means in plain words, and what it does not: from a score and the probe's held-out metrics alone.
 * It never calls a picture safe, nor a person's data proven to be in the training set.
 */
const SYMBOLS = { "flagged": "▲", "not-flagged": "▽", "abstain": "?" };
/** A number and its sign stay on one line. */
const percent = (share) => `${Number((share * 100).toPrecision(2))}\u00a0%`;
/** A probability, which rounding must not make a certainty. */
const chance = (share) =>
  share > 0.999
    ? "over 99.9\u00a0%"
    : share < 0.001
    ? "under 0.1\u00a0%"
    : share > 0.99
    ? `${(share * 100).toFixed(1)}\u00a0%`
    : percent(share);
const oneIn = (fpr) => fpr === 0.001 ? "1 in 1,000" : "1 in 100";
const REASONS = {
  "no-threshold": "Too few unseen people were held out to set a threshold this strict.",
  "beyond-support": "The picture lies beyond those that the probe was made with.",
  "no-evidence": "On people left out, the probe told seen from unseen no better than chance would.",
};

/** The decision as a heading: a symbol and words, so that colour is not needed. */
export function headline({ decision: { answer } }) {
  const words = { "flagged": "Flagged", "not-flagged": "Not flagged", "abstain": "No answer" };
  return `${SYMBOLS[answer]} ${words[answer]}`;
}

/** The decision as a few sentences. @param probe the probe's description: whom its probability speaks of */
export function meaning({ decision, fpr, primary }, { seen, unseen }) {
  const { answer, agreement, reason, detail } = decision, { calibrated, probability, interval } = primary;
  const first = answer === "flagged"
    ? `While the model looks at this picture, its layers look as they do for people it was fine-tuned on. Of pictures of unseen people, at most ${
      oneIn(fpr)
    } should come out like this.`
    : answer === "not-flagged"
    ? calibrated && probability >= 0.5
      ? `The layers look more like those for people the model was fine-tuned on than not, but too little for a flag: more than ${
        oneIn(fpr)
      } pictures of unseen people score as high or higher.`
      : "While the model looks at this picture, its layers do not stand out from those for people it has not seen."
    : REASONS[reason] ?? detail;
  const agree = agreement === null
    ? ""
    : ` ${agreement === 1 ? "All" : `${percent(agreement)} of the`} layers that can answer say the same.`;
  const range = interval ? ` (${chance(interval.low)} to ${chance(interval.high)})` : "";
  const odds = calibrated
    ? ` Among ${seen.people} people seen and ${unseen.people} unseen, as the probe was made with, the probability of seen is ${
      chance(probability)
    }${range}.`
    : "";
  return first + (answer === "abstain" ? "" : agree + odds);
}

/** What the answer does not mean. @param probe the probe's description, for its held-out metrics */
export function meansNot({ decision: { answer }, primary, fpr }, probe) {
  const lines = [];
  const metrics = probe.layers.find(({ feature }) => feature === primary.feature)?.metrics ?? {};
  const held = metrics.single ?? metrics.sound;
  if (answer === "flagged") {
    lines.push(
      "Not that this person's data was in the training set: unseen people are flagged too, now and then.",
    );
    lines.push("Not that the model can say any of it. A layer may carry what no answer shows.");
  } else {
    const found = fpr === 0.001 ? held?.tpr_at_01pct_fpr : held?.tpr_at_1pct_fpr;
    const share = found === undefined
      ? ""
      : `: of pictures of people it has seen, ${percent(found)} were flagged`;
    lines.push(`Not that the model has never seen this person${share}.`);
  }
  if (!primary.calibrated) {
    lines.push("Not a probability: this probe is not calibrated, its scores only rank pictures.");
  }
  if (held) {
    lines.push(
      `Not certain: of two pictures, of a person seen and one unseen, both left out of the fit, the probe scores the right one higher ${
        Math.round(held.auroc * 100)
      } times in 100 (AUROC ${held.auroc.toFixed(2)}; guessing: 50).`,
    );
  }
  return lines;
}

/** How to read the drawing. */
export function legend({ layers }) {
  const drawn = layers.some(({ interval }) => interval !== null) ? " Bars: 95\u00a0% intervals." : "";
  return `One dot a layer, from first to last. Dashed: the threshold, which a flag must exceed; filled dots do. The ringed dot decides.${drawn}`;
}

/** A probe in one line. */
export function aboutProbe({ title, content, model, seen, unseen, mode, layers }) {
  return `${title}. Looks for: ${content}. Model: ${model.name}${
    model.adapter ? ", fine-tuned" : ", as it is"
  }. Fitted on ${seen.people} people seen and ${unseen.people} unseen, split ${
    mode === "sound" ? "by person" : "by image"
  }; ${layers.length} layers.`;
}

/** What went wrong, for a problem document or for none. */
export function failure(problem, status) {
  if (problem) {
    return { title: problem.title, detail: problem.detail, type: problem.type, request: problem.request_id };
  }
  return status === 0
    ? { title: "The service cannot be reached", detail: "The connection failed; is it still running?" }
    : { title: `The service answered ${status}`, detail: "It gave no reason." };
}
