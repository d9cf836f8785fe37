/**
 * Requests that mean harm by their form, whatever picture is in them: wrong multipart, false lengths, broken framing.
 * The first kind goes through `fetch`; the second is bytes for a bare connection, since no client would send it.
 */
import { concat, repeated, zeros } from "./hostile_png.ts";

export interface HostileRequest {
  name: string;
  type: string;
  headers?: Record<string, string>;
  body: Uint8Array<ArrayBuffer>;
}

const END = "\r\n--b--\r\n";
const IMAGE =
  `content-disposition: form-data; name="image"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n`;
const LONG = 7_900_000;

/** A good picture in wrong forms, and forms without one. */
export async function hostileRequests(png: Uint8Array): Promise<HostileRequest[]> {
  const type = "multipart/form-data; boundary=b", whole = concat(`--b\r\n${IMAGE}`, png, END);
  const many = (unit: string, before = "--b\r\n") =>
    concat(before, repeated(concat(unit), Math.floor(LONG / unit.length)), END);
  const part = (head: string) => concat(`--b\r\n${head}\r\n\r\n`, png, END);
  const forms: Record<string, Uint8Array<ArrayBuffer>> = {
    "nothing": concat(""),
    "the end alone": concat("--b--\r\n"),
    "no end": concat(`--b\r\n${IMAGE}`, png),
    "another boundary": concat(`--c\r\n${IMAGE}`, png, "\r\n--c--\r\n"),
    "lines that end in LF": concat(`--b\n${IMAGE.replaceAll("\r", "")}`, png, "\n--b--\n"),
    "a part without a head": part(""),
    "a part without a name": part("content-disposition: form-data"),
    "an empty name": part('content-disposition: form-data; name=""; filename="a"'),
    "a name that does not end": part('content-disposition: form-data; name="image; filename=a'),
    "a name of 8 kB": part(`content-disposition: form-data; name="${"n".repeat(8000)}"; filename="a"`),
    "a file name that climbs": part(
      'content-disposition: form-data; name="image"; filename="../../../etc/passwd"',
    ),
    "a file name with NUL and newlines": part(
      'content-disposition: form-data; name="image"; filename="a\0b%0d%0a.png"',
    ),
    "a name that is a prototype's": part('content-disposition: form-data; name="__proto__"; filename="a"'),
    "the picture as text": part('content-disposition: form-data; name="image"'),
    "an encoded part": part(
      'content-disposition: form-data; name="image"; filename="a"\r\ncontent-transfer-encoding: base64',
    ),
    "a form within the form": part(
      'content-disposition: form-data; name="image"; filename="a"\r\ncontent-type: multipart/mixed; boundary=b',
    ),
    "two pictures": concat(`--b\r\n${IMAGE}`, png, `\r\n--b\r\n${IMAGE}`, png, END),
    "an empty picture": concat(`--b\r\n${IMAGE}`, END),
    "158,000 fields": many("\r\n--b\r\ncontent-disposition: form-data; name=a\r\n\r\nx"),
    "parts of nothing": many("\r\n--b\r\n\r\n"),
    "boundaries that are none": many("\r\n--", `--b\r\n${IMAGE}`),
    "newlines": many("\r\n", `--b\r\n${IMAGE}`),
    "hyphens": many("-", `--b\r\n${IMAGE}`),
    "a head of 8 MB": many("a:b\r\n"),
    "a head line of 8 MB": many("a", "--b\r\nx: "),
    "16 kB more than a picture may have": concat(`--b\r\n${IMAGE}`, new Uint8Array(8_017_000), END),
  };
  const boundaries: Record<string, string> = {
    "no boundary": "multipart/form-data",
    "an empty boundary": "multipart/form-data; boundary=",
    "an empty boundary in quotes": 'multipart/form-data; boundary=""',
    "a boundary of a thousand letters": `multipart/form-data; boundary=${"b".repeat(1000)}`,
    "two boundaries": "multipart/form-data; boundary=b; boundary=c",
    "a boundary like a pattern": "multipart/form-data; boundary=(.*)+$",
    "another multipart type": "multipart/mixed; boundary=b",
    "a list of types": "image/png, multipart/form-data; boundary=b",
  };
  const gzip = await zeros(50, "gzip");
  return [
    ...Object.entries(forms).map(([name, body]) => ({ name: `form: ${name}`, type, body })),
    ...Object.entries(boundaries).map(([name, given]) => ({
      name: `form: ${name}`,
      type: given,
      body: whole,
    })),
    ...["gzip", "deflate", "br", "gzip, gzip", "identity, gzip", "x".repeat(2000)].map((encoding) => ({
      name: `encoded as ${encoding.slice(0, 20)}`,
      type: "image/png",
      headers: { "content-encoding": encoding },
      body: gzip,
    })),
    ...[
      "",
      "text/html",
      "image/*",
      "image/png; charset=utf-8",
      "IMAGE/PNG",
      "image/svg+xml",
      "a".repeat(4000),
    ]
      .map((given) => ({
        name: `type ${given.slice(0, 30)}`,
        type: given,
        body: concat(png),
      })),
  ];
}

export interface HostileBytes {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Whole requests as bytes: what the server makes of heads, lengths and framing that contradict each other. */
export function hostileBytes(path: string, png: Uint8Array): HostileBytes[] {
  const head = (...lines: string[]) => [`POST ${path} HTTP/1.1`, "Host: h", ...lines, "", ""].join("\r\n");
  const image = "Content-Type: image/png", length = `Content-Length: ${png.length}`;
  const chunked = "Transfer-Encoding: chunked";
  const made: [string, Uint8Array][] = [
    ["a length larger than the body", concat(head(image, `Content-Length: ${png.length + 9}`), png)],
    ["a length smaller than the body", concat(head(image, "Content-Length: 9"), png)],
    ["a length of 1 TB", concat(head(image, "Content-Length: 1000000000000"), png)],
    ["a length beyond 64 bits", concat(head(image, "Content-Length: 99999999999999999999999"), png)],
    ["a negative length", concat(head(image, "Content-Length: -1"), png)],
    ["a length that is a word", concat(head(image, "Content-Length: many"), png)],
    ["two lengths", concat(head(image, length, "Content-Length: 9"), png)],
    ["no length", concat(head(image), png)],
    ["a length and chunks", concat(head(image, length, chunked), "5\r\nhello\r\n0\r\n\r\n")],
    ["a chunk of no size", concat(head(image, chunked), "zz\r\n", png)],
    ["a chunk beyond 64 bits", concat(head(image, chunked), "fffffffffffffffff\r\n", png)],
    ["a chunk that does not end", concat(head(image, chunked), "ffffff\r\n", png)],
    [
      "20,000 chunks of one byte",
      concat(head(image, chunked), repeated(concat("1\r\n\x89\r\n"), 20_000), "0\r\n\r\n"),
    ],
    [
      "a chunk with a tail of 100 kB",
      concat(head(image, chunked), `1;${"x".repeat(100_000)}\r\na\r\n0\r\n\r\n`),
    ],
    ["trailers without end", concat(head(image, chunked), "0\r\n", repeated(concat("a: b\r\n"), 50_000))],
    ["chunks that are encoded", concat(head(image, "Transfer-Encoding: gzip, chunked"), "0\r\n\r\n")],
    ["5,000 header lines", concat(head(image, ...Array(5000).fill("x: y")), png)],
    ["a header of 1 MB", concat(head(image, `X: ${"y".repeat(1_000_000)}`), png)],
    ["a header with NUL", concat(head(image, "X: a\0b", length), png)],
    ["a header folded over lines", concat(head(image, "X: a\r\n b", length), png)],
    ["a header without a name", concat(head(image, ": x", length), png)],
    ["no host", concat(`POST ${path} HTTP/1.1\r\n${image}\r\n${length}\r\n\r\n`, png)],
    ["two hosts", concat(head("Host: g", image, length), png)],
    [
      "a path of 100 kB",
      concat(`POST /${"a".repeat(100_000)} HTTP/1.1\r\nHost: h\r\n${length}\r\n\r\n`, png),
    ],
    ["a path that climbs", concat(`POST /v1/../../etc/passwd HTTP/1.1\r\nHost: h\r\n${length}\r\n\r\n`, png)],
    ["a path with NUL", concat(`POST ${path}%00 HTTP/1.1\r\nHost: h\r\n${image}\r\n${length}\r\n\r\n`, png)],
    ["a method of 10 kB", concat(`${"P".repeat(10_000)} ${path} HTTP/1.1\r\nHost: h\r\n\r\n`)],
    ["HTTP 9.9", concat(`POST ${path} HTTP/9.9\r\nHost: h\r\n\r\n`)],
    ["HTTP 2 without asking", concat("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", new Uint8Array(9))],
    ["a greeting in TLS", Uint8Array.of(0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3)],
    ["noise", Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) >> 3)],
    ["half a head", concat(`POST ${path} HTTP/1.1\r\nHost:`)],
    ["a picture where the head should be", concat(png)],
    ["an upgrade", concat(head(image, length, "Connection: Upgrade", "Upgrade: websocket"), png)],
    ["100 requests in a row", repeated(concat(head(image, length), png), 100)],
  ];
  return made.map(([name, bytes]) => ({ name, bytes: bytes.slice() as Uint8Array<ArrayBuffer> }));
}
