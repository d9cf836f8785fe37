// product: out (R,C) = S (R,N) x (N,C), or out += S x, for a sparse S that the host lists row by row.
// `lists` holds the starts (R + 1), the columns (E), the rows of `out` (R) and the weights (E), the last two only
// where ACCUMULATE and WEIGHTED say so. Entries are added up in the order of the list.
override ACCUMULATE: bool;
override WEIGHTED: bool;

struct Sizes { R: u32, C: u32, E: u32 } // C in units of a vec4 in product4
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> lists: array<u32>;
@group(0) @binding(2) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn column(e: u32) -> u32 { return lists[s.R + 1u + e]; }

fn outRow(r: u32) -> u32 {
  if (!ACCUMULATE) { return r; }
  return lists[s.R + 1u + s.E + r];
}

fn weight(e: u32) -> f32 {
  if (!WEIGHTED) { return 1.0; }
  return bitcast<f32>(lists[s.R + 1u + s.E + select(0u, s.R, ACCUMULATE) + e]);
}

@compute @workgroup_size(64)
fn product4(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  let r = i / s.C;
  let c = i % s.C;
  if (r >= s.R) { return; }
  var sum = vec4<f32>();
  for (var e = lists[r]; e < lists[r + 1u]; e++) { sum += weight(e) * x4[column(e) * s.C + c]; }
  let o = outRow(r) * s.C + c;
  if (ACCUMULATE) { sum += out4[o]; }
  out4[o] = sum;
}

@compute @workgroup_size(64)
fn product1(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  let r = i / s.C;
  let c = i % s.C;
  if (r >= s.R) { return; }
  var sum = 0.0;
  for (var e = lists[r]; e < lists[r + 1u]; e++) { sum += weight(e) * x[column(e) * s.C + c]; }
  let o = outRow(r) * s.C + c;
  if (ACCUMULATE) { sum += out[o]; }
  out[o] = sum;
}
