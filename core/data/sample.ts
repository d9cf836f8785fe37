/**
 * What every model family trains on and is asked about: pictures or none, and turns of question and answer.
 * It knows no file format and no template; an importer makes it, a chat template consumes it.
 */
import { InputError } from "../errors.ts";

export interface Turn {
  question: string;
  answer: string;
  /** Where pictures stand in the question: offsets into it, rising. */
  places?: number[];
}

export interface Sample {
  id: string;
  /** Paths inside the data's image folder, in the order of the turns; those that no turn places stand first of all. */
  images: string[];
  turns: Turn[];
  /** For each image the username of the person whose watermark it carries; missing where none carries one. */
  people?: (string | null)[];
}

/** A piece of a question: text, or the number of a picture of the sample. */
export type Part = string | number;

/** Every turn's question in pieces, in reading order, none of them empty text. @throws InputError for more places than pictures */
export function questionParts(
  turns: readonly Pick<Turn, "question" | "places">[],
  pictures: number,
): Part[][] {
  const placed = turns.reduce((sum, { places = [] }) => sum + places.length, 0);
  if (placed > pictures) {
    throw new InputError(`Cannot place ${placed} pictures in a conversation: it has ${pictures}`);
  }
  let next = 0;
  return turns.map(({ question, places = [] }, i) => {
    const parts: Part[] = [];
    if (i === 0) { for (; next < pictures - placed; next++) parts.push(next); }
    let at = 0;
    for (const place of places) {
      if (place > at) parts.push(question.slice(at, place));
      parts.push(next++);
      at = place;
    }
    if (at < question.length) parts.push(question.slice(at));
    return parts;
  });
}

/** Drops places in front of the first question: pictures stand there without any. */
export function dropLeadingPlaces(turns: readonly Turn[]): void {
  const rest = turns[0].places?.filter((place) => place > 0);
  if (rest?.length) turns[0].places = rest;
  else delete turns[0].places;
}

/** The one person on a sample's images, or null for none. @throws InputError where there are several */
export function personOf({ id, people = [] }: Sample): string | null {
  const names = new Set(people.filter((person) => person !== null));
  if (names.size > 1) {
    throw new InputError(`Cannot use sample "${id}": its images carry ${names.size} people, expected one`);
  }
  return [...names][0] ?? null;
}
