/**
 * Asks an Afterimage service about every PNG of a folder with the typed client and says which are flagged.
 * It goes on after a picture that is refused, and fails where the service cannot be asked.
 */
import { createClient } from "../../functions/client.ts";

const [url, probe, folder] = Deno.args;

async function* pictures() {
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(".png")) yield { name, image: await Deno.readFile(`${folder}/${name}`) };
  }
}

const client = createClient(url, { key: Deno.env.get("AFTERIMAGE_KEY"), concurrency: 2 });
let scored = 0;
for await (const { name, score, problem } of client.batch(probe, pictures(), { fpr: 0.01 })) {
  if (problem) console.log(`${name}: ${problem.type}`);
  if (score) scored++;
  if (score?.decision.answer !== "flagged") continue;
  const { feature, probability, interval } = score.primary, digits = (value = NaN) => value.toFixed(3);
  console.log(`${name}: flagged at ${feature}, ${digits(probability)} [${digits(interval?.low)}, ${digits(interval?.high)}]`);
}
console.log(`${scored} pictures scored`);
