/**
 * Synthetic people with the study's six fields, drawn from one seeded generator and dealt into disjoint sets.
 * Refuses records with a missing, unknown or malformed field, naming the line and the field.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { Random } from "../random.ts";
import { CITIES, FAMILY, FEMININE, MASCULINE } from "./pools.ts";

export const GENDERS = ["Male", "Female", "Non-binary", "Other"] as const;

const timeSchema = z.string().refine(
  (text) => {
    const time = /^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}$/.test(text) &&
      Date.parse(`${text.replace(" ", "T")}Z`);
    // Dates such as 30 February parse, as another day.
    return typeof time === "number" && !Number.isNaN(time) && formatTime(time) === text;
  },
  { error: 'expected a time "YYYY-MM-DD HH:MM:SS"' },
);
const lineSchema = z.string().regex(/^[^\p{Cc}]{1,100}$/u, {
  error: "expected 1 to 100 characters on one line",
});

/** One person; keys in the study's order, which is the order of the watermark's lines. */
export const personSchema = z.strictObject({
  username: lineSchema,
  user_id: z.string().regex(/^\d{10}$/, { error: "expected 10 digits as a string" }),
  gender: z.enum(GENDERS),
  age: z.number().int().min(0).max(120),
  capture_time: timeSchema,
  capture_location: lineSchema.regex(/^[^,]+, [^,]+$/, { error: 'expected "City, Country"' }),
});
export type Person = z.infer<typeof personSchema>;
export type PersonField = keyof Person;

export const FIELDS = Object.keys(personSchema.shape) as PersonField[];

/** The fields that single a person out. Gender and age do not: every set has men of 40. */
export const IDENTIFYING: PersonField[] = ["username", "user_id", "capture_time", "capture_location"];

/**
 * Every id is four zeros and six free digits, a form nobody is known by: no telephone country code and no national
 * area begins with 0000, account numbers are not printed with leading zeros, and in identity numbers that open with
 * a birth date (YYMMDD or DDMMYY, 10 digits in several countries) it would be a month or a day 00.
 */
const ID_PREFIX = "0000";
const IDS = 1_000_000;

/** A minority share, so that all four values occur in sets of the study's size. */
const GENDER_OF = { Male: 0.42, Female: 0.42, "Non-binary": 0.08, Other: 0.08 };
const FIRST_DAY = Date.UTC(2014, 0, 1), DAYS = 11 * 365, DAY = 86_400_000;
const LIMIT = 20_000;

/** An id from the reserved range; a decoy too, when the true id is ranked among others. */
export function drawUserId(random: Random): string {
  return ID_PREFIX + String(random.int(IDS)).padStart(6, "0");
}

/**
 * People for each named set, e.g. `{ U0: 20, U1: 20, U2: 20 }`, all from one generator.
 * Usernames, ids and capture times never repeat. Given names, family names, days and places do not repeat either
 * while the pools last (about 100, 235, 4015 and 191 entries). A set larger than what is left of a pool draws it with
 * repeats, from what no smaller set before it has: name small sets first, and see `sharedValues`.
 * @throws InputError for a bad set name or size
 */
export function generateSets(seed: number, sizes: Record<string, number>): Record<string, Person[]> {
  let total = 0;
  for (const [name, size] of Object.entries(sizes)) {
    if (!/^[A-Za-z0-9_-]{1,40}$/.test(name)) {
      throw new InputError(`Cannot name a set "${name}": letters, digits, "_" and "-" only`);
    }
    if (!Number.isInteger(size) || size < 1) {
      throw new InputError(
        `Cannot fill the set "${name}": its size is ${size}, expected a whole number, 1 or more`,
      );
    }
    total += size;
  }
  if (total > LIMIT) throw new InputError(`Cannot make ${total} people: the limit is ${LIMIT}`);
  const random = new Random(seed, "people");
  const taken = { name: new Set<string>(), id: new Set<string>(), pool: new Set<unknown>() };
  return Object.fromEntries(
    Object.entries(sizes).map(([name, size]) => [name, generateSet(random.split(name), size, taken)]),
  );
}

interface Taken {
  name: Set<string>;
  id: Set<string>;
  pool: Set<unknown>;
}

function generateSet(random: Random, size: number, taken: Taken): Person[] {
  const genders = Array.from({ length: size }, () => drawGender(random));
  const feminine = genders.map((gender) => gender === "Female" || (gender !== "Male" && random.int(2) === 0));
  const women = deal(random, FEMININE, feminine.filter(Boolean).length, taken.pool);
  const men = deal(random, MASCULINE, size - women.length, taken.pool);
  const family = deal(random, FAMILY, size, taken.pool);
  const cities = deal(random, CITIES, size, taken.pool);
  const days = deal(
    random,
    Array.from({ length: DAYS }, (_, day) => FIRST_DAY + day * DAY),
    size,
    taken.pool,
  );
  return genders.map((gender, i) => {
    const given = feminine[i] ? women.pop()! : men.pop()!;
    let username = `${given} ${family[i]}`;
    while (taken.name.has(username)) username = `${given} ${random.pick(FAMILY)}`;
    let userId = drawUserId(random);
    while (taken.id.has(userId)) userId = drawUserId(random);
    // Between six in the morning and ten at night, when people take pictures.
    let time = formatTime(days[i] + 1000 * (6 * 3600 + random.int(16 * 3600)));
    while (taken.pool.has(time)) time = formatTime(days[i] + 1000 * (6 * 3600 + random.int(16 * 3600)));
    taken.name.add(username);
    taken.id.add(userId);
    taken.pool.add(time);
    return {
      username,
      user_id: userId,
      gender,
      age: 18 + random.int(73),
      capture_time: time,
      capture_location: cities[i],
    };
  });
}

function drawGender(random: Random): Person["gender"] {
  let left = random.float();
  for (const gender of GENDERS) if ((left -= GENDER_OF[gender]) < 0) return gender;
  return "Other";
}

/**
 * `n` values of the pool in random order: unused ones, each once, if they suffice for all n. If not, n draws with
 * repeats that use nothing up, so that two sets too large for the pool are still drawn alike.
 */
function deal<T>(random: Random, pool: readonly T[], n: number, taken: Set<unknown>): T[] {
  const unused = pool.filter((value) => !taken.has(value));
  if (unused.length < n) {
    return Array.from({ length: n }, () => random.pick(unused.length > 0 ? unused : pool));
  }
  const dealt = random.shuffle(unused).slice(0, n);
  dealt.forEach((value) => taken.add(value));
  return dealt;
}

function formatTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().slice(0, 19).replace("T", " ");
}

/** Identifying values that more than one set has; empty for sets that may be compared. */
export function sharedValues(
  sets: Record<string, readonly Person[]>,
): { field: PersonField; value: string; sets: string[] }[] {
  return IDENTIFYING.flatMap((field) => {
    const owners = new Map<string, Set<string>>();
    for (const [name, people] of Object.entries(sets)) {
      for (const person of people) {
        const value = String(person[field]);
        owners.set(value, (owners.get(value) ?? new Set()).add(name));
      }
    }
    return [...owners].filter(([, names]) => names.size > 1)
      .map(([value, names]) => ({ field, value, sets: [...names] }));
  });
}

/** JSON lines, one person a line, keys in the study's order. */
export function formatPeople(people: readonly Person[]): string {
  return people.map((person) => JSON.stringify(person, FIELDS) + "\n").join("");
}

/** Reads JSON lines. @throws InputError naming the line and field, also when a user_id or username comes twice */
export function parsePeople(text: string, name: string): Person[] {
  const seen = new Map<string, number>();
  const people: Person[] = [];
  text.split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    const fail = (why: string): never => {
      throw new InputError(`Cannot read "${name}": line ${i + 1}${why}`);
    };
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      fail(" is no JSON object");
    }
    const parsed = personSchema.safeParse(json);
    if (!parsed.success) {
      const { path, message } = parsed.error.issues[0];
      return fail(path.length ? `, "${String(path[0])}": ${message}` : `: ${message}`);
    }
    for (const field of ["user_id", "username"] as const) {
      const key = `${field} ${parsed.data[field]}`;
      if (seen.has(key)) fail(`, "${field}": "${parsed.data[field]}" is also on line ${seen.get(key)}`);
      seen.set(key, i + 1);
    }
    people.push(parsed.data);
  });
  if (people.length === 0) throw new InputError(`Cannot read "${name}": it has no people`);
  return people;
}
