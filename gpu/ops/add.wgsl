// add:   out = a + b
// scale: out = factor * a
// Four values an invocation; a buffer is always a multiple of 16 bytes, so the last vec4 may reach past N harmlessly.
// Operands are declared by operands_panel.wgsl or operands_storage.wgsl, which stand before this file.
struct Sizes { N: u32, factor: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;

@group(0) @binding(3) var<storage, read_write> sum: array<vec4<f32>>;

@compute @workgroup_size(64)
fn add(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i < s.N) { sum[i] = a[i] + b[i]; }
}

@group(0) @binding(2) var<storage, read_write> scaled: array<vec4<f32>>;

@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i < s.N) { scaled[i] = s.factor * a[i]; }
}
