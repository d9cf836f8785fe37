// out = (e^lseA a + e^lseB b) / (e^lseA + e^lseB): attention over two sets of keys from the results over each (Dao et al.
// 2022, 3.1). The sum over an empty range is no number, so what an empty range of b gave is not read.
struct Sizes {
  rows: u32, // T * H * D4
  H: u32,
  D4: u32,   // head width / 4
}
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;          // (T, H, D)
@group(0) @binding(2) var<storage, read> lseA: array<f32>;             // (T, H)
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;          // (T, H, D)
@group(0) @binding(4) var<storage, read> lseB: array<f32>;             // (T, H)
@group(0) @binding(5) var<storage, read> ranges: array<vec2<u32>>;     // (T), of the keys behind b
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;  // (T, H, D)

@compute @workgroup_size(64)
fn join(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.rows) { return; }
  let head = i / s.D4;
  let range = ranges[head / s.H];
  if (range.x >= range.y) {
    out[i] = a[i];
    return;
  }
  let share = 1.0 / (1.0 + exp(lseA[head] - lseB[head])); // of b
  out[i] = a[i] + share * (b[i] - a[i]);
}
