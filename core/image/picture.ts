/**
 * A picture in memory: 8-bit RGB, row by row, and the eight ways a camera can have turned it.
 * It holds no alpha and no colour profile; what a file says beyond RGB is dropped when it is decoded.
 */
export interface Picture {
  width: number;
  height: number;
  /** RGB, 3 bytes a pixel, row by row from the top: width * height * 3 bytes. */
  data: Uint8Array;
}

/** A black picture. */
export function blankPicture(width: number, height: number): Picture {
  return { width, height, data: new Uint8Array(width * height * 3) };
}

/** The part of a picture that starts at (left, top); what lies outside the picture is black. */
export function cropPicture(
  picture: Picture,
  left: number,
  top: number,
  width: number,
  height: number,
): Picture {
  const out = blankPicture(width, height);
  const x0 = Math.max(0, -left), x1 = Math.min(width, picture.width - left);
  if (x1 <= x0) return out;
  for (let y = Math.max(0, -top); y < Math.min(height, picture.height - top); y++) {
    const from = ((top + y) * picture.width + left + x0) * 3;
    out.data.set(picture.data.subarray(from, from + (x1 - x0) * 3), (y * width + x0) * 3);
  }
  return out;
}

/**
 * Turns a stored picture the way it is meant to be seen.
 * @param orientation the EXIF tag 0x0112, 1 to 8 (CIPA DC-008, 4.6.5.1.6): from 5 on rows and columns change places
 */
export function orientPicture(picture: Picture, orientation: number): Picture {
  if (orientation === 1) return picture;
  const { width: w, height: h, data } = picture;
  const turned = orientation >= 5;
  const out = blankPicture(turned ? h : w, turned ? w : h);
  // 2 mirrors, 3 turns round, 4 flips; 5 transposes, 6 turns right, 7 transposes the other way, 8 turns left.
  const flipX = [2, 3, 7, 8].includes(orientation), flipY = [3, 4, 6, 7].includes(orientation);
  for (let y = 0, at = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++, at += 3) {
      const column = turned ? y : x, row = turned ? x : y;
      const from = ((flipY ? h - 1 - row : row) * w + (flipX ? w - 1 - column : column)) * 3;
      out.data[at] = data[from];
      out.data[at + 1] = data[from + 1];
      out.data[at + 2] = data[from + 2];
    }
  }
  return out;
}
