/**
 * `deno task check`, `serve` and `key` used wrongly: each says in one line what is wrong and ends with 2.
 * A stack, a second line or another exit code fails; so does a fault in a batch that the log does not tell.
 */
import assert from "node:assert/strict";
import { readKeys } from "../scripts/keys.ts";
import { png, withService } from "./service_probe.ts";

const ROOT = new URL("..", import.meta.url).pathname, BUNDLE = `${ROOT}models/example_bundle`;
const PICTURE = `${ROOT}tests/fixtures/images/rgb.png`;

/** The example bundle with one bit of one file turned. */
async function flipped(folder: string, file: string): Promise<string> {
  await Deno.mkdir(folder);
  for await (const { name } of Deno.readDir(BUNDLE)) {
    const bytes = await Deno.readFile(`${BUNDLE}/${name}`);
    if (name === file) bytes[bytes.length >> 1] ^= 1;
    await Deno.writeFile(`${folder}/${name}`, bytes);
  }
  return folder;
}

async function run([task, ...args]: string[]): Promise<{ code: number; out: string; err: string }> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", `scripts/${task}.ts`, ...args],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { code, stdout, stderr } = await command.output(), text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

Deno.test("wrong use of check, serve and key is one line and exit code 2", async () => {
  const folder = await Deno.makeTempDir();
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 }), { port } = taken.addr as Deno.NetAddr;
  try {
    const empty = `${folder}/empty`;
    await Deno.mkdir(empty);
    const encoder = await flipped(`${folder}/encoder`, "encoder.f32.onnx");
    const probe = await flipped(`${folder}/probe`, "probe.safetensors");
    const cases: [args: string[], says: RegExp][] = [
      [["check"], /^check: Cannot use these settings: --probe: it is missing; --images: it is missing$/],
      [["check", "--probe", BUNDLE, "--images", empty], /^check: Cannot check ".*empty": it names no PNG/],
      [
        ["check", "--probe", PICTURE, "--images", PICTURE],
        /it is a file, expected a probe's or bundle's folder$/,
      ],
      [
        ["check", "--probe", encoder, "--images", PICTURE],
        /^check: Cannot use ".*encoder\.f32\.onnx": its sha256 is/,
      ],
      [
        ["check", "--probe", BUNDLE, "--images", PICTURE, "--junit", empty],
        /^check: Cannot go on: .*Is a directory.*empty/,
      ],
      [["serve", "--port", "x"], /^serve: Cannot use these settings: --port: it is no number$/],
      [["serve", "--store", empty], /^serve: Cannot serve ".*empty": it holds no finished probe or bundle/],
      [
        ["serve", "--port", "0", "--store", encoder],
        /^serve: Cannot use ".*encoder\.f32\.onnx": its sha256 is/,
      ],
      [
        ["serve", "--port", "0", "--store", probe],
        /^serve: Cannot use ".*probe\.safetensors": its sha256 is/,
      ],
      [
        ["serve", "--port", `${port}`],
        /^serve: Cannot listen on 127\.0\.0\.1 port \d+: Address already in use/,
      ],
      [["key", "--keys", `${PICTURE}/keys.json`], /^key: Cannot .*Not a directory/],
    ];
    const left = [...cases];
    const work = async () => {
      for (let next = left.shift(); next; next = left.shift()) {
        const [args, says] = next, { code, out, err } = await run(args);
        assert.equal(code, 2, `${args.join(" ")}: ${out}${err}`);
        assert.match(err.trim(), says);
        assert.equal(err.trim().split("\n").length, 1, err);
        assert.equal(out, "");
      }
    };
    await Promise.all([work(), work()]);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
      "empty",
      "encoder",
      "probe",
    ], "something was left behind");
  } finally {
    taken.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a file of keys that anybody may write is not read", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, `{"keys":[]}`);
    await Deno.chmod(path, 0o644);
    assert.deepEqual(await readKeys(path), []);
    await Deno.chmod(path, 0o646);
    await assert.rejects(readKeys(path), /anybody may write it \(mode 646\); chmod it to 600$/);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a fault of the host in one line of a batch is in the log with its cause", async () => {
  const encoder = { activations: () => Promise.reject(new Error("the model is gone")) };
  await withService({ encoder }, async (url, log) => {
    const form = new FormData();
    for (const [name, bytes] of [["cut.png", png.slice(0, 30)], ["whole.png", png]] as const) {
      form.append("image", new Blob([bytes], { type: "image/png" }), name);
    }
    const answer = await fetch(`${url}/v1/probes/tiny-test/batch`, { method: "POST", body: form });
    const problems = (await answer.text()).trim().split("\n").map((line) => JSON.parse(line).problem);
    assert.deepEqual([answer.status, ...problems.map(({ status }) => status)], [200, 422, 500]);
    // The broken picture is no fault of the host.
    const faults = log.filter(({ level }) => level === "error");
    assert.deepEqual(
      faults.map(({ status, error, problem, request_id }) => [status, error, problem, request_id]),
      [
        [500, "the model is gone", "/problems/internal", problems[1].request_id],
      ],
    );
  });
});
