/**
 * A plain text table for the terminal: columns as wide as their widest cell, text left and numbers right.
 * It refuses a row with another number of cells than the header has.
 */

/** One line a row under the header and a rule; a column is aligned right if all of its cells start like numbers. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const odd = rows.find((row) => row.length !== header.length);
  if (odd) throw new RangeError(`Cannot print a row of ${odd.length} cells: the header has ${header.length}`);
  const columns = header.map((name, at) => ({
    width: Math.max(name.length, ...rows.map((row) => row[at].length)),
    numeric: rows.every((row) => /^([-+]?[.\d]|-?$)/.test(row[at])),
  }));
  const line = (cells: readonly string[]) =>
    cells.map((cell, at) =>
      columns[at].numeric ? cell.padStart(columns[at].width) : cell.padEnd(columns[at].width)
    ).join("  ").trimEnd();
  return [line(header), columns.map(({ width }) => "-".repeat(width)).join("  "), ...rows.map(line)].join(
    "\n",
  );
}
