/**
 * Synthetic people: reproducible, disjoint, alike in distribution, and read back exactly or refused by line and field.
 */
import assert from "node:assert/strict";
import { MemoryFolder } from "../core/formats/folder.ts";
import { chooseSet, readPeople, writePeople } from "../core/privacy/people_folder.ts";
import { neutralLines } from "../core/privacy/neutral.ts";
import {
  drawUserId,
  FIELDS,
  formatPeople,
  generateSets,
  IDENTIFYING,
  parsePeople,
  type Person,
  personSchema,
  sharedValues,
} from "../core/privacy/people.ts";
import { CITIES, FAMILY, FEMININE, MASCULINE } from "../core/privacy/pools.ts";
import { Random } from "../core/random.ts";

const sizes = { U0: 20, U1: 20, U2: 20 };

Deno.test("the six fields are the study's, in its order", () => {
  const [first] = generateSets(1, sizes).U1;
  const order = ["username", "user_id", "gender", "age", "capture_time", "capture_location"];
  assert.deepEqual(Object.keys(first), order);
  assert.deepEqual(FIELDS, order);
});

Deno.test("a seed fixes the people, another seed changes them", () => {
  assert.deepEqual(generateSets(7, sizes), generateSets(7, sizes));
  assert.notDeepEqual(generateSets(7, sizes), generateSets(8, sizes));
});

Deno.test("no identifying value, name part or day repeats within or between sets while the pools last", () => {
  for (let seed = 0; seed < 20; seed++) {
    const sets = generateSets(seed, sizes);
    assert.deepEqual(sharedValues(sets), []);
    const people = Object.values(sets).flat();
    const unique = (what: string, values: string[]) =>
      assert.equal(new Set(values).size, 60, `${what}, seed ${seed}`);
    for (const field of IDENTIFYING) unique(field, people.map((person) => String(person[field])));
    unique("given name", people.map((person) => person.username.split(" ")[0]));
    unique("family name", people.map((person) => person.username.split(" ")[1]));
    unique("day", people.map((person) => person.capture_time.slice(0, 10)));
    people.forEach((person) => personSchema.parse(person));
    assert(people.every(({ age }) => age >= 18 && age <= 90));
  }
});

Deno.test("sets beyond the pools keep names, ids and times apart, and sharedValues tells the rest", () => {
  const sets = generateSets(3, { U1: 20, U2: 20, crowd: 2000 });
  const people = Object.values(sets).flat();
  for (const field of ["username", "user_id", "capture_time"] as const) {
    assert.equal(new Set(people.map((person) => person[field])).size, people.length, field);
  }
  assert.deepEqual(sharedValues(sets), [], "a crowd draws from cities that no earlier set has");
  const two = generateSets(3, { U1: 500, U2: 500 });
  const shared = sharedValues(two);
  assert(shared.length > 0 && shared.every(({ field }) => field === "capture_location"));
  assert.deepEqual(shared[0].sets, ["U1", "U2"]);
  // Drawn alike: about 177 of 191 cities are seen in 500 draws, by either set.
  for (const people of Object.values(two)) {
    assert(new Set(people.map((person) => person.capture_location)).size > 160);
  }
});

Deno.test("two sets of one call are alike: ages, genders and places over 300 seeds", () => {
  const mean = { U1: 0, U2: 0 }, women = { U1: 0, U2: 0 };
  for (let seed = 0; seed < 300; seed++) {
    const sets = generateSets(seed, { U1: 20, U2: 20 });
    for (const name of ["U1", "U2"] as const) {
      for (const person of sets[name]) {
        mean[name] += person.age / 6000;
        women[name] += Number(person.gender === "Female") / 6000;
      }
    }
  }
  // Four standard errors: ages have a deviation of 21 years, the share of women .49, over 6000 people a set.
  for (const name of ["U1", "U2"] as const) {
    assert(Math.abs(mean[name] - 54) < 4 * 21.1 / Math.sqrt(6000), `${name} ${mean[name]}`);
    assert(Math.abs(women[name] - 0.42) < 4 * 0.49 / Math.sqrt(6000), `${name} ${women[name]}`);
  }
});

Deno.test("ids keep to the range that nobody holds, and fill it", () => {
  const random = new Random(1);
  const ids = Array.from({ length: 5000 }, () => drawUserId(random));
  assert(ids.every((id) => /^0000\d{6}$/.test(id)));
  assert.deepEqual([...new Set(ids.map((id) => id[4]))].sort().join(""), "0123456789");
});

Deno.test("pools have no double and every place has a country", () => {
  for (const pool of [FEMININE, MASCULINE, FAMILY, CITIES]) assert.equal(new Set(pool).size, pool.length);
  assert(CITIES.every((city) => /^[A-Z][A-Za-z -]+, [A-Z][A-Za-z ]+$/.test(city)));
  assert([...FEMININE, ...MASCULINE, ...FAMILY].every((name) => /^[A-Z][A-Za-z]+$/.test(name)));
  assert(!FEMININE.some((name) => MASCULINE.includes(name)));
});

Deno.test("JSON lines come back as they were", () => {
  const { U1 } = generateSets(2, sizes);
  const text = formatPeople(U1);
  assert.deepEqual(parsePeople(text, "U1.jsonl"), U1);
  assert.equal(formatPeople(parsePeople(text.replaceAll("\n", "\r\n") + "\n", "U1.jsonl")), text);
  // Keys in another order are sorted into the study's.
  const reversed = Object.fromEntries(Object.entries(U1[0]).reverse()) as Person;
  assert.equal(formatPeople([reversed]), text.split("\n")[0] + "\n");
});

Deno.test("bad lines are refused by line and field", () => {
  const [a, b] = generateSets(2, sizes).U1;
  const refuse = (second: unknown, pattern: RegExp) =>
    assert.throws(
      () => parsePeople(`${JSON.stringify(a)}\n${JSON.stringify(second)}\n`, "U9.jsonl"),
      pattern,
    );
  refuse(
    { ...b, user_id: "12345" },
    /^InputError: Cannot read "U9.jsonl": line 2, "user_id": expected 10 digits/,
  );
  refuse({ ...b, age: "31" }, /line 2, "age"/);
  refuse({ ...b, gender: "m" }, /line 2, "gender"/);
  refuse({ ...b, capture_time: "2023-02-30 10:00:00" }, /line 2, "capture_time": expected a time/);
  refuse({ ...b, capture_location: "Paris" }, /line 2, "capture_location": expected "City, Country"/);
  refuse({ ...b, username: "two\nlines" }, /line 2, "username"/);
  refuse({ ...b, phone: "1" }, /line 2: .*phone/);
  refuse({ ...b, user_id: a.user_id }, /line 2, "user_id": "\d{10}" is also on line 1/);
  const { age: _, ...ageless } = b;
  refuse(ageless, /line 2, "age"/);
  assert.throws(() => parsePeople("{\n", "x.jsonl"), /Cannot read "x.jsonl": line 1 is no JSON object/);
  assert.throws(() => parsePeople("\n", "x.jsonl"), /it has no people/);
});

Deno.test("a people folder is read against its manifest", async () => {
  const folder = new MemoryFolder("people");
  const { sets, hash } = await writePeople(folder, 5, sizes);
  assert.deepEqual(await readPeople(folder), { sets, hash });
  assert.equal(chooseSet(sets, "U2"), sets.U2);
  assert.throws(() => chooseSet(sets, "U7"), /Cannot use the set "U7": there are "U0", "U1", "U2"/);
  assert.throws(() => chooseSet(sets, "toString"), /Cannot use the set/);
  await folder.write("U2.jsonl", formatPeople(sets.U1));
  await assert.rejects(readPeople(folder), /sha256/);
});

Deno.test("wrong sizes and names of sets are refused", () => {
  assert.throws(() => generateSets(1, { U1: 0 }), /Cannot fill the set "U1": its size is 0/);
  assert.throws(() => generateSets(1, { "../U1": 3 }), /Cannot name a set/);
  assert.throws(() => generateSets(1, { U1: 30000 }), /the limit is 20000/);
});

Deno.test("neutral text has a person's line lengths and nothing of a person", () => {
  const random = new Random(4);
  const people = generateSets(1, { U1: 30 }).U1;
  const names = new Set(people.flatMap((person) => person.username.toLowerCase().split(" ")));
  for (const person of people) {
    const lines = FIELDS.map((field) => `${field}: ${person[field]}`);
    const neutral = neutralLines(random, lines);
    assert.deepEqual(neutral.map((line) => line.length), lines.map((line) => line.length));
    assert(neutral.every((line) => /^[a-z ]*[a-z]$/.test(line)), neutral.join("|"));
    assert(!neutral.join(" ").split(" ").some((word) => names.has(word)));
  }
  assert.notDeepEqual(neutralLines(random, ["12345678"]), neutralLines(random, ["12345678"]));
});
