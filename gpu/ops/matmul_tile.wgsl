// Matrix products of any shape with workgroup tiles: 64 x 64 results a workgroup, 4 x 4 an invocation, 16 deep.
//   out (M,N) = alpha * A (M,K) B (K,N) + beta, where element (m,k) of A lies at a0 + m * am + k * ak, (k,n) of B at
//   k * bk + n * bn: the strides make it x w^T, dy w or dy^T x. Row m of the result starts at m * width + column0.
// accumulate: 0 overwrite, 1 add to the result, 2 start from the bias (width). B is f32 (TYPE = 0), packed bf16
// (1), two values a word, the lower half first, or NF4 (2): some rows of a matrix, from its value `first` on, bound
// from `skip` values before. nf4.wgsl stands before this file.
struct Sizes {
  M: u32, N: u32, K: u32,
  a0: u32, am: u32, ak: u32, bk: u32, bn: u32,
  alpha: f32, accumulate: u32,
  column0: u32, width: u32,
  first: u32, skip: u32,
}

override TYPE: u32 = 0u;
const TILE = 64u;
const DEPTH = 16u;

@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

var<workgroup> left: array<f32, 1088>;  // DEPTH x (TILE + 4): the padding keeps columns in different banks
var<workgroup> right: array<f32, 1088>;

fn element(i: u32) -> f32 {
  if (TYPE == 1u) {
    let word = b[i / 2u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
  }
  if (TYPE == 2u) {
    let at = s.first + i;
    return nf4Level(b[(s.skip + i) / 8u], at) * nf4Scale(at / 64u);
  }
  return bitcast<f32>(b[i]);
}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let m0 = group.y * TILE;
  let n0 = group.x * TILE;
  var acc: array<vec4<f32>, 4>;
  for (var k0 = 0u; k0 < s.K; k0 += DEPTH) {
    for (var i = index; i < TILE * DEPTH; i += 256u) {
      // Neighbouring invocations read neighbouring addresses, whichever of the two strides is 1.
      let ma = select(i / DEPTH, i % TILE, s.am == 1u);
      let ka = select(i % DEPTH, i / TILE, s.am == 1u);
      var value = 0.0;
      if (m0 + ma < s.M && k0 + ka < s.K) { value = a[s.a0 + (m0 + ma) * s.am + (k0 + ka) * s.ak]; }
      left[ka * 68u + ma] = value;
      let nb = select(i / DEPTH, i % TILE, s.bn == 1u);
      let kb = select(i % DEPTH, i / TILE, s.bn == 1u);
      value = 0.0;
      if (n0 + nb < s.N && k0 + kb < s.K) { value = element((k0 + kb) * s.bk + (n0 + nb) * s.bn); }
      right[kb * 68u + nb] = value;
    }
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      let r = k * 68u + local.x * 4u;
      let v = vec4<f32>(right[r], right[r + 1u], right[r + 2u], right[r + 3u]);
      let l = k * 68u + local.y * 4u;
      acc[0] += left[l] * v;
      acc[1] += left[l + 1u] * v;
      acc[2] += left[l + 2u] * v;
      acc[3] += left[l + 3u] * v;
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 4u; i++) {
    let m = m0 + local.y * 4u + i;
    for (var j = 0u; j < 4u; j++) {
      let n = n0 + local.x * 4u + j;
      if (m >= s.M || n >= s.N) { continue; }
      var value = s.alpha * acc[i][j];
      let o = m * s.width + s.column0 + n;
      if (s.accumulate == 1u) { value += out[o]; }
      if (s.accumulate == 2u) { value += bias[s.column0 + n]; }
      out[o] = value;
    }
  }
}
