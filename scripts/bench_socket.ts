/**
 * One kept HTTP/1.1 connection that costs next to nothing: what it measures is the server, not the client.
 * It refuses an answer without a Content-Length, which it could not find the end of.
 */
import { joinChunks } from "../functions/body.ts";

export interface Socket {
  /** Sends prepared bytes and reads one whole answer; gives its status. @throws Error when the server hangs up */
  ask(message: Uint8Array): Promise<number>;
  close(): void;
}

/** A request's bytes, head and body, to be sent many times. */
export function httpMessage(
  method: string,
  path: string,
  { host, type, body = new Uint8Array(0) }: { host: string; type?: string; body?: Uint8Array },
): Uint8Array {
  const lines = [`${method} ${path} HTTP/1.1`, `host: ${host}`];
  if (type) lines.push(`content-type: ${type}`, `content-length: ${body.length}`);
  const head = new TextEncoder().encode(lines.join("\r\n") + "\r\n\r\n");
  return joinChunks([head, body], head.length + body.length);
}

/** Connects to the host and port of `url`. */
export async function openSocket(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  connection.setNoDelay(true);
  const buffer = new Uint8Array(65_536), decoder = new TextDecoder("latin1"); // a character a byte
  return {
    async ask(message) {
      for (let sent = 0; sent < message.length;) sent += await connection.write(message.subarray(sent));
      for (let text = "";;) {
        const read = await connection.read(buffer);
        if (read === null) throw new Error("the server closed the connection");
        text += decoder.decode(buffer.subarray(0, read));
        const head = text.indexOf("\r\n\r\n");
        if (head < 0) continue;
        const length = /^content-length: (\d+)/im.exec(text.slice(0, head))?.[1];
        if (length === undefined) throw new Error("the answer has no Content-Length");
        if (text.length >= head + 4 + Number(length)) return Number(text.slice(9, 12));
      }
    },
    close: () => connection.close(),
  };
}
