/**
 * `deno task probe fit` and `deno task probe score`: fits probes on an activation set, scores pictures with one.
 * Refuses any other verb.
 */
import { runTask } from "./cli.ts";

const USAGE = `Usage: deno task probe VERB [options]

  fit        fit probes of "seen in training" on an activation set, layer by layer, and store them
  score      score pictures with a stored probe

"deno task probe VERB --help" shows the options`;

if (import.meta.main) {
  const [verb, ...argv] = Deno.args;
  if (verb === "fit") await runTask((await import("./probe_fit.ts")).fitTask, argv);
  // Imported here alone, so that fitting needs no GPU and starts faster.
  else if (verb === "score") await runTask((await import("./probe_score.ts")).scoreTask, argv);
  else if (verb === undefined || verb === "--help" || verb === "-h") console.log(USAGE);
  else {
    console.error(`probe: Unknown verb "${verb}": expected "fit" or "score"`);
    Deno.exit(2);
  }
}
