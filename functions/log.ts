/**
 * What the service logs: one JSON object a request, one line each, for a collector to parse.
 * It holds no image bytes, no query string and no header but the request id.
 */
export interface LogEntry {
  time: string;
  level: "info" | "error";
  request_id: string;
  method: string;
  /** The path without its query, at most 200 characters. */
  path: string;
  status: number;
  ms: number;
  /** The id of the API key, which is no secret. */
  key_id?: string;
  /** Bytes of the image, where there was one. */
  bytes?: number;
  /** The problem's type, where the answer was one. */
  problem?: string;
  /** What went wrong inside, for a 5xx alone; it never reaches the client. */
  error?: string;
}
export type Log = (entry: LogEntry) => void;

/** Writes each entry as one line. */
export const jsonLines = (write: (line: string) => void): Log => (entry) => write(JSON.stringify(entry));
