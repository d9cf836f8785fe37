// Values of an NF4 matrix, for the files that this one stands before. `scales` are those of the whole matrix:
// 256 levels of an 8-bit code, the mean of the blocks' scales, then 65 words for every 256 blocks of 64 values: how far
// they lie from the mean at most, and their codes, four to a word.
@group(0) @binding(2) var<storage, read> scales: array<u32>;

fn nf4Scale(block: u32) -> f32 {
  let group = 257u + block / 256u * 65u;
  let code = scales[group + 1u + block % 256u / 4u] >> (block % 4u * 8u) & 255u;
  return bitcast<f32>(scales[code]) * bitcast<f32>(scales[group]) + bitcast<f32>(scales[256]);
}

// The level of value i of the matrix, whose code is in `word`: two codes a byte, the first in the upper half.
fn nf4Level(word: u32, i: u32) -> f32 {
  let code = word >> ((i % 8u ^ 1u) * 4u);
  let one = (code & 1u) != 0u;
  let two = (code & 2u) != 0u;
  let four = (code & 4u) != 0u;
  let low = select(
    select(select(-1.0, -0.6961928009986877, one), select(-0.5250730514526367, -0.39491748809814453, one), two),
    select(select(-0.28444138169288635, -0.18477343022823334, one), select(-0.09105003625154495, 0.0, one), two),
    four,
  );
  let high = select(
    select(select(0.07958029955625534, 0.16093020141124725, one), select(0.24611230194568634, 0.33791524171829224, one), two),
    select(select(0.44070982933044434, 0.5626170039176941, one), select(0.7229568362236023, 1.0, one), two),
    four,
  );
  return select(low, high, (code & 8u) != 0u);
}
