// toK[list[m]] = k[m] and toV[list[m]] = v[m]
struct Sizes { M: u32, C4: u32 } // rows, and values of a row / 4
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> list: array<u32>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> toK: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> toV: array<vec4<f32>>;

@compute @workgroup_size(64)
fn store(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.M * s.C4) { return; }
  let to = list[i / s.C4] * s.C4 + i % s.C4;
  toK[to] = k[i];
  toV[to] = v[i];
}
