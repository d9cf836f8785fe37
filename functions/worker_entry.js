/**
 * Where wrangler starts: it turns the imported WebAssembly files into modules, which only bundlers do.
 * It is JavaScript because a type checker refuses to read them; what there is to check is in worker.ts.
 */
import jpegDecoder from "@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm";
import webpDecoder from "@jsquash/webp/codec/dec/webp_dec.wasm";
import onnxRuntime from "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm";
import { createWorker } from "./worker.ts";

export { worker as default };
const worker = createWorker({ jpegDecoder, webpDecoder, onnxRuntime });
