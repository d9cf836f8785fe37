// rotary: in each head of width D = 2 * half, element i turns with element i + half by the angle of (t, i):
//   y[i]        = x[i] * cos - x[i + half] * sin
//   y[i + half] = x[i + half] * cos + x[i] * sin
// Backward is the turn by the opposite angle: direction -1.
struct Sizes { T: u32, H: u32, half: u32, direction: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, H*D)
@group(0) @binding(2) var<storage, read> cosine: array<f32>; // (T, half)
@group(0) @binding(3) var<storage, read> sine: array<f32>; // (T, half)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T, H*D)

// An invocation turns the pair i of row t in every head, by one angle.
@compute @workgroup_size(64)
fn rotate(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let angle = id.x + id.y * groups.x * 64u;
  if (angle >= s.T * s.half) { return; }
  let t = angle / s.half;
  let c = cosine[angle];
  let n = s.direction * sine[angle];
  var at = 2u * t * s.H * s.half + angle % s.half;
  for (var h = 0u; h < s.H; h++) {
    let a = x[at];
    let b = x[at + s.half];
    y[at] = a * c - b * n;
    y[at + s.half] = b * c + a * n;
    at += 2u * s.half;
  }
}
