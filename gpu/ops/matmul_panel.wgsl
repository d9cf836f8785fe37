// Matrix products for adapters that compute on the CPU: both operands come through uniform bindings of 64 KiB
// ("panels": some rows of a matrix), which software Vulkan reads ten times faster than storage, and each invocation
// keeps a block of the result in registers. Blocks are numbered along the columns, so that thin results fill all lanes.
//   nt: out (T,N) += alpha * x (T,K) w (N,K)^T      panels: rows of x, rows of w      block 16 rows x 8 columns
//   nn: out (T,K) += alpha * dy (T,N) w (N,K)       panels: rows of dy, rows of w     block  8 rows x 16 columns
//   tn: out (N,K) += alpha * dy (T,N)^T x (T,K)     panels: rows of dy, rows of x     block  8 rows x 16 columns
// `out` is the whole result; the sizes say where the panels' block of it starts; accumulate = 0 overwrites.
// A weight of packed bf16 (BF16 = 1) holds two values a word, the lower half first; otherwise its words are f32.
struct Sizes {
  T: u32, N: u32, K: u32,     // rows of the panels that count, and columns
  row0: u32, column0: u32,    // nt: first row and column of the result. nn: first row, first used column of dy
  width: u32,                 // nt: columns of the result. nn: columns of dy
  alpha: f32, accumulate: u32,
  outColumn0: u32, outWidth: u32, // nn, tn: first column of the block of the result that this product gives, all columns
}

override BF16: u32 = 0u;
override SIZE: u32 = 16u;

@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<uniform> x: array<vec4<f32>, 4096>;
@group(0) @binding(2) var<uniform> w: array<vec4<u32>, 4096>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> nt_out: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

fn weight(i: u32) -> vec4<f32> {
  if (BF16 == 1u) {
    let words = w[i / 2u];
    let v = select(words.xy, words.zw, (i & 1u) == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u));
  }
  return bitcast<vec4<f32>>(w[i]);
}

fn put(row: u32, n: u32, v: f32) {
  if (n >= s.N) { return; }
  let o = (s.row0 + row) * s.width + s.column0 + n;
  var value = s.alpha * v;
  if (s.accumulate == 1u) { value += nt_out[o]; }
  else if (s.accumulate == 2u) { value += bias[s.column0 + n]; }
  nt_out[o] = value;
}

fn put8(row: u32, column: u32, left: vec4<f32>, right: vec4<f32>) {
  if (row >= s.T) { return; }
  put(row, column, left.x); put(row, column + 1u, left.y); put(row, column + 2u, left.z); put(row, column + 3u, left.w);
  put(row, column + 4u, right.x); put(row, column + 5u, right.y); put(row, column + 6u, right.z); put(row, column + 7u, right.w);
}

// Rows past the end read the last row again: cheaper than a branch, and their results are not written.
// accumulate: 0 overwrite, 1 add to the result, 2 start from the bias.
@compute @workgroup_size(SIZE)
fn nt(@builtin(global_invocation_id) id: vec3<u32>) {
  let blocks = (s.N + 7u) / 8u;
  let row = id.x / blocks * 16u;
  let column = id.x % blocks * 8u;
  if (row >= s.T) { return; }
  let K4 = s.K / 4u;
  let x0 = min(row + 0u, s.T - 1u) * K4;
  let x1 = min(row + 1u, s.T - 1u) * K4;
  let x2 = min(row + 2u, s.T - 1u) * K4;
  let x3 = min(row + 3u, s.T - 1u) * K4;
  let x4 = min(row + 4u, s.T - 1u) * K4;
  let x5 = min(row + 5u, s.T - 1u) * K4;
  let x6 = min(row + 6u, s.T - 1u) * K4;
  let x7 = min(row + 7u, s.T - 1u) * K4;
  let x8 = min(row + 8u, s.T - 1u) * K4;
  let x9 = min(row + 9u, s.T - 1u) * K4;
  let x10 = min(row + 10u, s.T - 1u) * K4;
  let x11 = min(row + 11u, s.T - 1u) * K4;
  let x12 = min(row + 12u, s.T - 1u) * K4;
  let x13 = min(row + 13u, s.T - 1u) * K4;
  let x14 = min(row + 14u, s.T - 1u) * K4;
  let x15 = min(row + 15u, s.T - 1u) * K4;
  let w0 = min(column + 0u, s.N - 1u) * K4;
  let w1 = min(column + 1u, s.N - 1u) * K4;
  let w2 = min(column + 2u, s.N - 1u) * K4;
  let w3 = min(column + 3u, s.N - 1u) * K4;
  let w4 = min(column + 4u, s.N - 1u) * K4;
  let w5 = min(column + 5u, s.N - 1u) * K4;
  let w6 = min(column + 6u, s.N - 1u) * K4;
  let w7 = min(column + 7u, s.N - 1u) * K4;
  var a0 = vec4<f32>(); var b0 = vec4<f32>();
  var a1 = vec4<f32>(); var b1 = vec4<f32>();
  var a2 = vec4<f32>(); var b2 = vec4<f32>();
  var a3 = vec4<f32>(); var b3 = vec4<f32>();
  var a4 = vec4<f32>(); var b4 = vec4<f32>();
  var a5 = vec4<f32>(); var b5 = vec4<f32>();
  var a6 = vec4<f32>(); var b6 = vec4<f32>();
  var a7 = vec4<f32>(); var b7 = vec4<f32>();
  var a8 = vec4<f32>(); var b8 = vec4<f32>();
  var a9 = vec4<f32>(); var b9 = vec4<f32>();
  var a10 = vec4<f32>(); var b10 = vec4<f32>();
  var a11 = vec4<f32>(); var b11 = vec4<f32>();
  var a12 = vec4<f32>(); var b12 = vec4<f32>();
  var a13 = vec4<f32>(); var b13 = vec4<f32>();
  var a14 = vec4<f32>(); var b14 = vec4<f32>();
  var a15 = vec4<f32>(); var b15 = vec4<f32>();
  for (var k = 0u; k < K4; k++) {
    let left = mat4x4<f32>(weight(w0 + k), weight(w1 + k), weight(w2 + k), weight(w3 + k));
    let right = mat4x4<f32>(weight(w4 + k), weight(w5 + k), weight(w6 + k), weight(w7 + k));
    let v0 = x[x0 + k]; a0 += v0 * left; b0 += v0 * right;
    let v1 = x[x1 + k]; a1 += v1 * left; b1 += v1 * right;
    let v2 = x[x2 + k]; a2 += v2 * left; b2 += v2 * right;
    let v3 = x[x3 + k]; a3 += v3 * left; b3 += v3 * right;
    let v4 = x[x4 + k]; a4 += v4 * left; b4 += v4 * right;
    let v5 = x[x5 + k]; a5 += v5 * left; b5 += v5 * right;
    let v6 = x[x6 + k]; a6 += v6 * left; b6 += v6 * right;
    let v7 = x[x7 + k]; a7 += v7 * left; b7 += v7 * right;
    let v8 = x[x8 + k]; a8 += v8 * left; b8 += v8 * right;
    let v9 = x[x9 + k]; a9 += v9 * left; b9 += v9 * right;
    let v10 = x[x10 + k]; a10 += v10 * left; b10 += v10 * right;
    let v11 = x[x11 + k]; a11 += v11 * left; b11 += v11 * right;
    let v12 = x[x12 + k]; a12 += v12 * left; b12 += v12 * right;
    let v13 = x[x13 + k]; a13 += v13 * left; b13 += v13 * right;
    let v14 = x[x14 + k]; a14 += v14 * left; b14 += v14 * right;
    let v15 = x[x15 + k]; a15 += v15 * left; b15 += v15 * right;
  }
  put8(row + 0u, column, a0, b0);
  put8(row + 1u, column, a1, b1);
  put8(row + 2u, column, a2, b2);
  put8(row + 3u, column, a3, b3);
  put8(row + 4u, column, a4, b4);
  put8(row + 5u, column, a5, b5);
  put8(row + 6u, column, a6, b6);
  put8(row + 7u, column, a7, b7);
  put8(row + 8u, column, a8, b8);
  put8(row + 9u, column, a9, b9);
  put8(row + 10u, column, a10, b10);
  put8(row + 11u, column, a11, b11);
  put8(row + 12u, column, a12, b12);
  put8(row + 13u, column, a13, b13);
  put8(row + 14u, column, a14, b14);
  put8(row + 15u, column, a15, b15);
}

fn store(row: u32, column: u32, rows: u32, v: vec4<f32>) {
  let K4 = s.K / 4u;
  if (row >= rows || column >= K4) { return; }
  let o = (s.row0 + row) * (s.outWidth / 4u) + s.outColumn0 / 4u + column;
  var value = s.alpha * v;
  if (s.accumulate == 1u) { value += out[o]; }
  out[o] = value;
}

// Four rows of w at one column of four.
fn columns(at: u32, stride: u32) -> mat4x4<f32> {
  return mat4x4<f32>(weight(at), weight(at + stride), weight(at + 2u * stride), weight(at + 3u * stride));
}

@compute @workgroup_size(SIZE)
fn nn(@builtin(global_invocation_id) id: vec3<u32>) {
  let K4 = s.K / 4u;
  let blocks = (K4 + 3u) / 4u;
  let row = id.x / blocks * 8u;
  let column = id.x % blocks * 4u;
  if (row >= s.T) { return; }
  let N4 = s.N / 4u;
  let W4 = s.width / 4u;
  let x0 = min(row + 0u, s.T - 1u) * W4 + s.column0 / 4u;
  let x1 = min(row + 1u, s.T - 1u) * W4 + s.column0 / 4u;
  let x2 = min(row + 2u, s.T - 1u) * W4 + s.column0 / 4u;
  let x3 = min(row + 3u, s.T - 1u) * W4 + s.column0 / 4u;
  let x4 = min(row + 4u, s.T - 1u) * W4 + s.column0 / 4u;
  let x5 = min(row + 5u, s.T - 1u) * W4 + s.column0 / 4u;
  let x6 = min(row + 6u, s.T - 1u) * W4 + s.column0 / 4u;
  let x7 = min(row + 7u, s.T - 1u) * W4 + s.column0 / 4u;
  let k0 = min(column + 0u, K4 - 1u);
  let k1 = min(column + 1u, K4 - 1u);
  let k2 = min(column + 2u, K4 - 1u);
  let k3 = min(column + 3u, K4 - 1u);
  var a00 = vec4<f32>(); var a01 = vec4<f32>(); var a02 = vec4<f32>(); var a03 = vec4<f32>();
  var a10 = vec4<f32>(); var a11 = vec4<f32>(); var a12 = vec4<f32>(); var a13 = vec4<f32>();
  var a20 = vec4<f32>(); var a21 = vec4<f32>(); var a22 = vec4<f32>(); var a23 = vec4<f32>();
  var a30 = vec4<f32>(); var a31 = vec4<f32>(); var a32 = vec4<f32>(); var a33 = vec4<f32>();
  var a40 = vec4<f32>(); var a41 = vec4<f32>(); var a42 = vec4<f32>(); var a43 = vec4<f32>();
  var a50 = vec4<f32>(); var a51 = vec4<f32>(); var a52 = vec4<f32>(); var a53 = vec4<f32>();
  var a60 = vec4<f32>(); var a61 = vec4<f32>(); var a62 = vec4<f32>(); var a63 = vec4<f32>();
  var a70 = vec4<f32>(); var a71 = vec4<f32>(); var a72 = vec4<f32>(); var a73 = vec4<f32>();
  for (var n = 0u; n < N4; n++) {
    let base = 4u * n * K4;
    let m0 = columns(base + k0, K4);
    let m1 = columns(base + k1, K4);
    let m2 = columns(base + k2, K4);
    let m3 = columns(base + k3, K4);
    let d0 = x[x0 + n]; a00 += m0 * d0; a01 += m1 * d0; a02 += m2 * d0; a03 += m3 * d0;
    let d1 = x[x1 + n]; a10 += m0 * d1; a11 += m1 * d1; a12 += m2 * d1; a13 += m3 * d1;
    let d2 = x[x2 + n]; a20 += m0 * d2; a21 += m1 * d2; a22 += m2 * d2; a23 += m3 * d2;
    let d3 = x[x3 + n]; a30 += m0 * d3; a31 += m1 * d3; a32 += m2 * d3; a33 += m3 * d3;
    let d4 = x[x4 + n]; a40 += m0 * d4; a41 += m1 * d4; a42 += m2 * d4; a43 += m3 * d4;
    let d5 = x[x5 + n]; a50 += m0 * d5; a51 += m1 * d5; a52 += m2 * d5; a53 += m3 * d5;
    let d6 = x[x6 + n]; a60 += m0 * d6; a61 += m1 * d6; a62 += m2 * d6; a63 += m3 * d6;
    let d7 = x[x7 + n]; a70 += m0 * d7; a71 += m1 * d7; a72 += m2 * d7; a73 += m3 * d7;
  }
  store(row + 0u, column + 0u, s.T, a00); store(row + 0u, column + 1u, s.T, a01); store(row + 0u, column + 2u, s.T, a02); store(row + 0u, column + 3u, s.T, a03);
  store(row + 1u, column + 0u, s.T, a10); store(row + 1u, column + 1u, s.T, a11); store(row + 1u, column + 2u, s.T, a12); store(row + 1u, column + 3u, s.T, a13);
  store(row + 2u, column + 0u, s.T, a20); store(row + 2u, column + 1u, s.T, a21); store(row + 2u, column + 2u, s.T, a22); store(row + 2u, column + 3u, s.T, a23);
  store(row + 3u, column + 0u, s.T, a30); store(row + 3u, column + 1u, s.T, a31); store(row + 3u, column + 2u, s.T, a32); store(row + 3u, column + 3u, s.T, a33);
  store(row + 4u, column + 0u, s.T, a40); store(row + 4u, column + 1u, s.T, a41); store(row + 4u, column + 2u, s.T, a42); store(row + 4u, column + 3u, s.T, a43);
  store(row + 5u, column + 0u, s.T, a50); store(row + 5u, column + 1u, s.T, a51); store(row + 5u, column + 2u, s.T, a52); store(row + 5u, column + 3u, s.T, a53);
  store(row + 6u, column + 0u, s.T, a60); store(row + 6u, column + 1u, s.T, a61); store(row + 6u, column + 2u, s.T, a62); store(row + 6u, column + 3u, s.T, a63);
  store(row + 7u, column + 0u, s.T, a70); store(row + 7u, column + 1u, s.T, a71); store(row + 7u, column + 2u, s.T, a72); store(row + 7u, column + 3u, s.T, a73);
}

@compute @workgroup_size(SIZE)
fn tn(@builtin(global_invocation_id) id: vec3<u32>) {
  let K4 = s.K / 4u;
  let N4 = s.N / 4u;
  let blocks = (K4 + 3u) / 4u;
  let row = id.x / blocks * 2u;
  let column = id.x % blocks * 4u;
  if (row >= N4) { return; }
  let next = min(row + 1u, N4 - 1u);
  let k0 = min(column + 0u, K4 - 1u);
  let k1 = min(column + 1u, K4 - 1u);
  let k2 = min(column + 2u, K4 - 1u);
  let k3 = min(column + 3u, K4 - 1u);
  var a00 = vec4<f32>(); var a01 = vec4<f32>(); var a02 = vec4<f32>(); var a03 = vec4<f32>();
  var a10 = vec4<f32>(); var a11 = vec4<f32>(); var a12 = vec4<f32>(); var a13 = vec4<f32>();
  var a20 = vec4<f32>(); var a21 = vec4<f32>(); var a22 = vec4<f32>(); var a23 = vec4<f32>();
  var a30 = vec4<f32>(); var a31 = vec4<f32>(); var a32 = vec4<f32>(); var a33 = vec4<f32>();
  var a40 = vec4<f32>(); var a41 = vec4<f32>(); var a42 = vec4<f32>(); var a43 = vec4<f32>();
  var a50 = vec4<f32>(); var a51 = vec4<f32>(); var a52 = vec4<f32>(); var a53 = vec4<f32>();
  var a60 = vec4<f32>(); var a61 = vec4<f32>(); var a62 = vec4<f32>(); var a63 = vec4<f32>();
  var a70 = vec4<f32>(); var a71 = vec4<f32>(); var a72 = vec4<f32>(); var a73 = vec4<f32>();
  for (var t = 0u; t < s.T; t++) {
    let d = x[t * N4 + row]; let e = x[t * N4 + next];
    let v0 = weight(t * K4 + k0);
    a00 += d.x * v0; a10 += d.y * v0; a20 += d.z * v0; a30 += d.w * v0; a40 += e.x * v0; a50 += e.y * v0; a60 += e.z * v0; a70 += e.w * v0;
    let v1 = weight(t * K4 + k1);
    a01 += d.x * v1; a11 += d.y * v1; a21 += d.z * v1; a31 += d.w * v1; a41 += e.x * v1; a51 += e.y * v1; a61 += e.z * v1; a71 += e.w * v1;
    let v2 = weight(t * K4 + k2);
    a02 += d.x * v2; a12 += d.y * v2; a22 += d.z * v2; a32 += d.w * v2; a42 += e.x * v2; a52 += e.y * v2; a62 += e.z * v2; a72 += e.w * v2;
    let v3 = weight(t * K4 + k3);
    a03 += d.x * v3; a13 += d.y * v3; a23 += d.z * v3; a33 += d.w * v3; a43 += e.x * v3; a53 += e.y * v3; a63 += e.z * v3; a73 += e.w * v3;
  }
  store(4u * row + 0u, column + 0u, s.N, a00); store(4u * row + 0u, column + 1u, s.N, a01); store(4u * row + 0u, column + 2u, s.N, a02); store(4u * row + 0u, column + 3u, s.N, a03);
  store(4u * row + 1u, column + 0u, s.N, a10); store(4u * row + 1u, column + 1u, s.N, a11); store(4u * row + 1u, column + 2u, s.N, a12); store(4u * row + 1u, column + 3u, s.N, a13);
  store(4u * row + 2u, column + 0u, s.N, a20); store(4u * row + 2u, column + 1u, s.N, a21); store(4u * row + 2u, column + 2u, s.N, a22); store(4u * row + 2u, column + 3u, s.N, a23);
  store(4u * row + 3u, column + 0u, s.N, a30); store(4u * row + 3u, column + 1u, s.N, a31); store(4u * row + 3u, column + 2u, s.N, a32); store(4u * row + 3u, column + 3u, s.N, a33);
  store(4u * row + 4u, column + 0u, s.N, a40); store(4u * row + 4u, column + 1u, s.N, a41); store(4u * row + 4u, column + 2u, s.N, a42); store(4u * row + 4u, column + 3u, s.N, a43);
  store(4u * row + 5u, column + 0u, s.N, a50); store(4u * row + 5u, column + 1u, s.N, a51); store(4u * row + 5u, column + 2u, s.N, a52); store(4u * row + 5u, column + 3u, s.N, a53);
  store(4u * row + 6u, column + 0u, s.N, a60); store(4u * row + 6u, column + 1u, s.N, a61); store(4u * row + 6u, column + 2u, s.N, a62); store(4u * row + 6u, column + 3u, s.N, a63);
  store(4u * row + 7u, column + 0u, s.N, a70); store(4u * row + 7u, column + 1u, s.N, a71); store(4u * row + 7u, column + 2u, s.N, a72); store(4u * row + 7u, column + 3u, s.N, a73);
}
