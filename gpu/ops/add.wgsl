// add:   out = x + y
// scale: out = factor * x
// Four values an invocation; a buffer is always a multiple of 16 bytes, so the last vec4 may reach past N harmlessly.
struct AddSizes { N: u32 }
struct ScaleSizes { N: u32, factor: f32 }

@group(0) @binding(0) var<uniform> a: AddSizes;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> sum: array<vec4<f32>>;

@compute @workgroup_size(64)
fn add(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i < a.N) { sum[i] = x[i] + y[i]; }
}

@group(0) @binding(0) var<uniform> s: ScaleSizes;
@group(0) @binding(2) var<storage, read_write> scaled: array<vec4<f32>>;

@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i < s.N) { scaled[i] = s.factor * x[i]; }
}
