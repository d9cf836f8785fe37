// y row = x[list[row]], or base[row] where the list says NONE.
// A packed table (bf16, two values a word, the lower half first) is decoded on the way. x is a window of a table that
// may be larger than a binding: rows first to first + rows. What lies outside is another dispatch's.
const NONE = 0xffffffffu;

struct Sizes { M: u32, C: u32, first: u32, rows: u32 } // C in units of what an invocation copies: 4 values, 1, or a packed pair
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> list: array<u32>;
@group(0) @binding(2) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> base4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn rows4(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.M * s.C) { return; }
  let source = list[i / s.C];
  let row = source - s.first;
  if (source == NONE) {
    y4[i] = base4[i];
  } else if (row < s.rows) { // also false below the window, where the difference wraps around
    y4[i] = x4[row * s.C + i % s.C];
  }
}

@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> base: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn rows1(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.M * s.C) { return; }
  let source = list[i / s.C];
  let row = source - s.first;
  if (source == NONE) {
    y[i] = base[i];
  } else if (row < s.rows) { // also false below the window, where the difference wraps around
    y[i] = x[row * s.C + i % s.C];
  }
}

@group(0) @binding(2) var<storage, read> packed: array<u32>;
@group(0) @binding(3) var<storage, read_write> pairs: array<vec2<f32>>;

@compute @workgroup_size(64)
fn rowsBf16(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.M * s.C) { return; }
  let row = list[i / s.C] - s.first;
  if (row >= s.rows) { return; }
  let word = packed[row * s.C + i % s.C];
  pairs[i] = bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u));
}
