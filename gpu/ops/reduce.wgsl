// columns: out row k = sum over rows k * height to (k + 1) * height of x (T,C), first to last; added to `out` where
// ACCUMULATE says so. Run once over all rows in strips, then once over the strips. In columns4 x is the operand `a` of
// operands_panel.wgsl (some rows; the first of them begin strip0) or operands_storage.wgsl (all), which stand before
// this file.
override ACCUMULATE: bool;

struct Sizes { T: u32, C: u32, height: u32, strip0: u32 } // C in units of a vec4 in columns4
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(2) var<storage, read_write> out4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn columns4(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  let first = i / s.C * s.height;
  if (first >= s.T) { return; }
  var sum = vec4<f32>();
  for (var t = first; t < min(s.T, first + s.height); t++) { sum += a[t * s.C + i % s.C]; }
  let o = s.strip0 * s.C + i;
  if (ACCUMULATE) { sum += out4[o]; }
  out4[o] = sum;
}

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn columns1(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  let first = i / s.C * s.height;
  if (first >= s.T) { return; }
  var sum = 0.0;
  for (var t = first; t < min(s.T, first + s.height); t++) { sum += x[t * s.C + i % s.C]; }
  if (ACCUMULATE) { sum += out[i]; }
  out[i] = sum;
}
