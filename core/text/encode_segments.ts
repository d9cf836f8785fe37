/**
 * Segments to token ids, labels and the places of pictures. A group is tokenised as the one text that it is, so ids are
 * those of the whole; what is learnt is found by tokenising up to its edges. Refuses an edge that lies inside a token.
 */
import { InputError } from "../errors.ts";
import type { Rendering, Segment } from "./chat.ts";
import { IGNORE } from "./tiny.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Ids and labels of T tokens, labels aligned and unshifted, and the tokens [from, to) that each picture takes. */
export interface EncodedText {
  ids: number[];
  labels: number[];
  pictures: [number, number][];
}

export interface EncodeOptions {
  /** The image token's id, and how it is spelled. */
  image?: { id: number; token: string };
  /** Learn the markers of turns where the template teaches them. */
  markers?: boolean;
}

const known = new WeakMap<Tokenizer, Map<string, boolean>>();

/** Whether a token spelled so is special: found in a template's text, and plain in a user's. */
export function isSpecialToken(tokenizer: Tokenizer, token: string): boolean {
  const id = tokenizer.idOf(token);
  if (id === undefined) return false;
  const answers = known.get(tokenizer) ?? new Map<string, boolean>();
  known.set(tokenizer, answers);
  let answer = answers.get(token);
  if (answer === undefined) {
    const ids = tokenizer.encode(token, { special: true });
    answers.set(token, answer = ids.includes(id) && !same(ids, tokenizer.encode(token)));
  }
  return answer;
}

const same = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((id, i) => id === b[i]);

/** Tokens that two lists begin with. */
function common(a: readonly number[], b: readonly number[]): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}

/** @throws InputError, to be completed with the sample's name */
export function encodeSegments(
  tokenizer: Tokenizer,
  rendering: Rendering,
  options: EncodeOptions = {},
): EncodedText {
  const out: EncodedText = { ids: [], labels: [], pictures: [] };
  for (const group of rendering) encodeGroup(tokenizer, group, options, out);
  if (tokenizer.addsBos && tokenizer.bos !== undefined && out.ids[0] !== tokenizer.bos) {
    out.ids.unshift(tokenizer.bos);
    out.labels.unshift(IGNORE);
    out.pictures = out.pictures.map(([from, to]) => [from + 1, to + 1]);
  }
  return out;
}

function encodeGroup(
  tokenizer: Tokenizer,
  group: readonly Segment[],
  { image, markers = true }: EncodeOptions,
  out: EncodedText,
): void {
  const encode = chooseEncoder(tokenizer, group, image);
  const ids = encode(group), stretches = stretchesOf(tokenizer, group, encode, ids);
  /** The token at which a segment begins or, one further, at which it is over. */
  const edge = (segment: number): number => {
    if (segment === group.length) return ids.length;
    const { segment: first, token } = stretches.findLast((stretch) => stretch.segment <= segment)!;
    if (segment === first) return token;
    const before = encode(group.slice(first, segment)), own = common(before, ids.slice(token));
    const at = token + own, rest = before.slice(own);
    // A space that the next word takes in is no loss; a letter would be learnt, or missed, unseen.
    if (rest.length && tokenizer.decode(rest, { special: true }).trim() !== "") {
      throw new InputError(
        `a token spans the text ${JSON.stringify(group[segment - 1].text.slice(-20))} and ${
          JSON.stringify(group[segment].text.slice(0, 20))
        }, one of which is learnt`,
      );
    }
    return at;
  };

  const labels = new Array<number>(ids.length).fill(IGNORE), spans: [number, number][] = [];
  for (let s = 0; s < group.length; s++) {
    const { from, learnt } = group[s];
    if (from === "picture") spans.push([edge(s), edge(s + 1)]);
    if (!isLearnt(learnt, markers)) continue;
    const start = edge(s);
    while (s + 1 < group.length && isLearnt(group[s + 1].learnt, markers)) s++;
    for (let i = start, end = edge(s + 1); i < end; i++) labels[i] = ids[i];
  }
  spread(ids, labels, spans, group.flatMap(({ runs = [] }) => runs), image?.id, out);
}

/**
 * Where a segment and a token begin together: at the start, and at special tokens of the template, between which texts
 * are tokenised by themselves. That is checked; where it does not hold, the start alone is left.
 */
function stretchesOf(
  tokenizer: Tokenizer,
  group: readonly Segment[],
  encode: EncodeGroup,
  ids: readonly number[],
): { segment: number; token: number }[] {
  const opens = ({ from, text }: Segment) => {
    const token = from === "text" ? undefined : /^<[^<>\s]+>/.exec(text)?.[0];
    return token !== undefined && isSpecialToken(tokenizer, token);
  };
  const starts = [0, ...group.keys().filter((i) => i > 0 && opens(group[i]))];
  const pieces = starts.map((from, i) => encode(group.slice(from, starts[i + 1])));
  if (!same(pieces.flat(), ids)) return [{ segment: 0, token: 0 }];
  let token = 0;
  return starts.map((segment, i) => {
    const stretch = { segment, token };
    token += pieces[i].length;
    return stretch;
  });
}

const isLearnt = (learnt: Segment["learnt"], markers: boolean) =>
  learnt === "answer" || (learnt === "marker" && markers);

/** Appends tokens to `out`, each image token as often as its run is long. */
function spread(
  ids: readonly number[],
  labels: readonly number[],
  spans: readonly [number, number][],
  runs: readonly number[],
  image: number | undefined,
  out: EncodedText,
): void {
  const written = ids.reduce((sum, id) => sum + Number(id === image), 0);
  if (image !== undefined && written !== runs.length) {
    throw new InputError(`the text has ${written} image tokens, expected ${runs.length}`);
  }
  const starts: number[] = [];
  let run = 0;
  ids.forEach((id, i) => {
    starts.push(out.ids.length);
    const times = id === image ? runs[run++] : 1;
    for (let n = 0; n < times; n++) {
      out.ids.push(id);
      out.labels.push(labels[i]);
    }
  });
  starts.push(out.ids.length);
  for (const [from, to] of spans) out.pictures.push([starts[from], starts[to]]);
}

type EncodeGroup = (segments: readonly Segment[]) => number[];

/**
 * The whole text at once, special tokens recognised; where a user's text spells one, text between the template's
 * special tokens by itself. An image token that the vocabulary lacks cuts the text, as LLaVA's own code does.
 */
function chooseEncoder(
  tokenizer: Tokenizer,
  group: readonly Segment[],
  image: EncodeOptions["image"],
): EncodeGroup {
  const spelled = image && tokenizer.idOf(image.token) === image.id;
  const cut = (encode: EncodeGroup): EncodeGroup => (segments) => {
    const ids: number[] = [];
    let chunk: Segment[] = [];
    for (const segment of segments) {
      if (segment.from !== "picture") chunk.push(segment);
      else {
        ids.push(...encode(chunk), image!.id);
        chunk = [];
      }
    }
    return [...ids, ...encode(chunk)];
  };
  const complete = (encode: EncodeGroup) => image && !spelled ? cut(encode) : encode;
  const whole = complete((segments) =>
    tokenizer.encode(segments.map(({ text }) => text).join(""), { special: true })
  );
  const spells = ({ from, text }: Segment) =>
    from === "text" && !same(tokenizer.encode(text, { special: true }), tokenizer.encode(text));
  if (!group.some(spells)) return whole;

  const careful = complete((segments) => encodeCarefully(tokenizer, segments));
  // Only where both ways agree on a text without such a spelling is the second one as good as the first.
  const harmless = group.map((segment) => spells(segment) ? { ...segment, text: "x" } : segment);
  if (!same(whole(harmless), careful(harmless))) {
    const text = group.find(spells)!.text.slice(0, 40);
    throw new InputError(`the text ${JSON.stringify(text)} spells a special token`);
  }
  return careful;
}

/** The special tokens of templates and pictures as such, whatever stands between two of them as plain text. */
function encodeCarefully(tokenizer: Tokenizer, segments: readonly Segment[]): number[] {
  const ids: number[] = [];
  let plain = "";
  for (const { from, text } of segments) {
    if (from === "text") {
      plain += text;
      continue;
    }
    for (const piece of text.split(/(<[^<>\s]+>)/)) {
      if (!isSpecialToken(tokenizer, piece)) {
        plain += piece;
        continue;
      }
      ids.push(...tokenizer.encode(plain), tokenizer.idOf(piece)!);
      plain = "";
    }
  }
  return [...ids, ...tokenizer.encode(plain)];
}
