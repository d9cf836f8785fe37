/**
 * The font and the renderer's WebAssembly as bytes, from the installed packages.
 * It is the one place that knows where they lie.
 */
const RESVG = "@resvg/resvg-wasm/index_bg.wasm";
const SANS = "dejavu-fonts-ttf/ttf/DejaVuSans.ttf";

/** What `createTextRenderer` needs for DejaVu Sans. */
export async function readFontFiles(): Promise<
  { wasm: Uint8Array<ArrayBuffer>; ttf: Uint8Array<ArrayBuffer> }
> {
  const [wasm, ttf] = await Promise.all(
    [RESVG, SANS].map((name) => Deno.readFile(new URL(import.meta.resolve(name)))),
  );
  return { wasm, ttf };
}
