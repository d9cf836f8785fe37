// rotary: in each head of width D = 2 * half, element i turns with element i + half by the angle of (t, i):
//   y[i]        = x[i] * cos - x[i + half] * sin
//   y[i + half] = x[i + half] * cos + x[i] * sin
// Backward is the turn by the opposite angle: direction -1.
struct Sizes { T: u32, pairs: u32, half: u32, direction: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, H*D)
@group(0) @binding(2) var<storage, read> cosine: array<f32>; // (T, half)
@group(0) @binding(3) var<storage, read> sine: array<f32>; // (T, half)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T, H*D)

// A pair an invocation: x over the pairs of a row, y and z over rows.
@compute @workgroup_size(64)
fn rotate(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let t = id.y + id.z * groups.y;
  if (id.x >= s.pairs || t >= s.T) { return; }
  let i = id.x % s.half;
  let at = 2u * (t * s.pairs + id.x - i) + i;
  let c = cosine[t * s.half + i];
  let n = s.direction * sine[t * s.half + i];
  let a = x[at];
  let b = x[at + s.half];
  y[at] = a * c - b * n;
  y[at + s.half] = b * c + a * n;
}
