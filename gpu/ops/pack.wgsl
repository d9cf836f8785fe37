// Columns of a matrix (R, C) into blocks of `width` columns: block b is a matrix of its own and starts at b * R * width;
// the last one may be narrower. C and width count vec4s.
struct Sizes { R: u32, C: u32, width: u32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> blocks: array<vec4<u32>>;

@compute @workgroup_size(64)
fn pack(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.R * s.C) { return; }
  let row = i / s.C;
  let column = i % s.C;
  let first = column / s.width * s.width;
  blocks[first * s.R + row * min(s.width, s.C - first) + column - first] = x[i];
}
