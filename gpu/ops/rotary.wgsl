// rotary: in each head of width D = 2 * half, element i turns with element i + half by the angle of (t, i):
//   y[i]        = x[i] * cos - x[i + half] * sin
//   y[i + half] = x[i + half] * cos + x[i] * sin
// Backward is the turn by the opposite angle: direction -1.
// turn4 takes four angles at once from the operands a: x, b: cosines, c: sines, which operands_panel.wgsl or
// operands_storage.wgsl, standing before this file, declare; turn1 takes one, where heads are no multiple of 8 wide.
struct Sizes { T: u32, H: u32, half: u32, direction: f32 } // half in units of a vec4 in turn4
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(4) var<storage, read_write> y4: array<vec4<f32>>; // (T, H*D)

@compute @workgroup_size(64)
fn turn4(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  let head = i / s.half;
  let t = head / s.H;
  if (t >= s.T) { return; }
  let at = 2u * head * s.half + i % s.half;
  let angle = t * s.half + i % s.half;
  let left = a[at];
  let right = a[at + s.half];
  let cosine = b[angle];
  let sine = s.direction * c[angle];
  y4[at] = left * cosine - right * sine;
  y4[at + s.half] = right * cosine + left * sine;
}

@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, H*D)
@group(0) @binding(2) var<storage, read> cosines: array<f32>; // (T, half)
@group(0) @binding(3) var<storage, read> sines: array<f32>; // (T, half)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T, H*D)

// An invocation turns the pair i of row t in every head, by one angle.
@compute @workgroup_size(64)
fn turn1(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let angle = id.x + id.y * groups.x * 64u;
  if (angle >= s.T * s.half) { return; }
  let t = angle / s.half;
  let cosine = cosines[angle];
  let sine = s.direction * sines[angle];
  var at = 2u * t * s.H * s.half + angle % s.half;
  for (var h = 0u; h < s.H; h++) {
    let left = x[at];
    let right = x[at + s.half];
    y[at] = left * cosine - right * sine;
    y[at + s.half] = right * cosine + left * sine;
    at += 2u * s.half;
  }
}
