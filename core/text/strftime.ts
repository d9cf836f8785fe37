/**
 * Python's strftime for the codes that chat templates use, in UTC and English. An unknown code stays as it is.
 */
const MONTHS = "January February March April May June July August September October November December".split(
  " ",
);
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** @param format as `%d %b %Y` */
export function strftime(date: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, "0"), hour = date.getUTCHours();
  const codes: Record<string, string> = {
    "%": "%",
    Y: String(date.getUTCFullYear()),
    y: two(date.getUTCFullYear() % 100),
    m: two(date.getUTCMonth() + 1),
    d: two(date.getUTCDate()),
    B: MONTHS[date.getUTCMonth()],
    b: MONTHS[date.getUTCMonth()].slice(0, 3),
    A: DAYS[date.getUTCDay()],
    a: DAYS[date.getUTCDay()].slice(0, 3),
    H: two(hour),
    I: two(hour % 12 || 12),
    p: hour < 12 ? "AM" : "PM",
    M: two(date.getUTCMinutes()),
    S: two(date.getUTCSeconds()),
  };
  return format.replace(/%(.)/g, (whole, code) => codes[code] ?? whole);
}
