/**
 * The orientation tag out of an EXIF block, read without a library: one IFD, one tag.
 * Anything that is not well-formed counts as "upright", as viewers do: a broken tag is no reason to refuse a picture.
 */
const ORIENTATION_TAG = 0x0112;
const SHORT = 3;

/** The orientation, 1 to 8, of a TIFF block, with or without "Exif\0\0" before it; 1 when it has none. */
export function exifOrientation(block: Uint8Array): number {
  const prefixed = block[0] === 0x45 && block[1] === 0x78 && block[2] === 0x69 && block[3] === 0x66;
  const tiff = prefixed ? block.subarray(6) : block;
  if (tiff.length < 14) return 1;
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  const order = view.getUint16(0);
  if (order !== 0x4949 && order !== 0x4d4d) return 1;
  const little = order === 0x4949;
  const ifd = view.getUint32(4, little);
  if (view.getUint16(2, little) !== 42 || ifd + 2 > tiff.length) return 1;
  const count = view.getUint16(ifd, little);
  for (let i = 0; i < count; i++) {
    const at = ifd + 2 + 12 * i;
    if (at + 12 > tiff.length) return 1;
    if (view.getUint16(at, little) !== ORIENTATION_TAG) continue;
    const value = view.getUint16(at + 8, little);
    return view.getUint16(at + 2, little) === SHORT && value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}
