// rmsnorm:   y = x * rstd * w                  rstd = 1 / sqrt(mean(x^2) + eps)
// layernorm: y = (x - mean) * rstd * w + b     rstd = 1 / sqrt(mean((x - mean)^2) + eps)
// With n = (x - mean) * rstd and g = dy * w, both have dx = rstd * (g - n * mean(g * n) - mean(g)), where the last
// term and the mean are absent in rmsnorm; dw = sum over rows of dy * n, db = sum over rows of dy.
override CENTRED: bool; // layernorm
override LANES: u32; // invocations that share a row: 1 where invocations are SIMD lanes of a CPU, else the workgroup

struct Sizes { T: u32, C: u32, eps: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, C)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (C)

const GROUP = 64u;
var<workgroup> shares: array<f32, GROUP>;

// The sum over the lanes of a row, in an order that depends on nothing but LANES.
fn rowSum(share: f32, local: u32) -> f32 {
  if (LANES == 1u) { return share; }
  workgroupBarrier(); // the previous sum has been read
  shares[local] = share;
  for (var step = GROUP / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (local < step) { shares[local] += shares[local + step]; }
  }
  workgroupBarrier();
  return shares[0];
}

// The row of an invocation, and the end of its columns: 0 past the last row, which keeps barriers uniform.
fn rowOf(local: u32, group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return (group.x + group.y * groups.x) * (GROUP / LANES) + local / LANES;
}

@group(0) @binding(3) var<storage, read> b: array<f32>; // (C)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T, C)
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>; // (T) mean and rstd

@compute @workgroup_size(GROUP)
fn forward(
  @builtin(local_invocation_index) local: u32,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let t = rowOf(local, group, groups);
  let lane = local % LANES;
  let end = select(0u, s.C, t < s.T);
  let row = t * s.C;
  var mean = 0.0;
  if (CENTRED) {
    var sum = 0.0;
    for (var c = lane; c < end; c += LANES) { sum += x[row + c]; }
    mean = rowSum(sum, local) / f32(s.C);
  }
  var squares = 0.0;
  for (var c = lane; c < end; c += LANES) {
    let d = x[row + c] - mean;
    squares += d * d;
  }
  let rstd = 1.0 / sqrt(rowSum(squares, local) / f32(s.C) + s.eps);
  for (var c = lane; c < end; c += LANES) {
    var v = (x[row + c] - mean) * rstd * w[c];
    if (CENTRED) { v += b[c]; }
    y[row + c] = v;
  }
  if (lane == 0u && t < s.T) { stats[t] = vec2(mean, rstd); }
}

@group(0) @binding(3) var<storage, read> dy: array<f32>; // (T, C)
@group(0) @binding(4) var<storage, read> saved: array<vec2<f32>>; // (T)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (T, C)

@compute @workgroup_size(GROUP)
fn backward(
  @builtin(local_invocation_index) local: u32,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let t = rowOf(local, group, groups);
  let lane = local % LANES;
  let end = select(0u, s.C, t < s.T);
  let row = t * s.C;
  let mean = saved[min(t, s.T - 1u)].x;
  let rstd = saved[min(t, s.T - 1u)].y;
  var gSum = 0.0;
  var gnSum = 0.0;
  for (var c = lane; c < end; c += LANES) {
    let g = dy[row + c] * w[c];
    gSum += g;
    gnSum += g * ((x[row + c] - mean) * rstd);
  }
  let gnMean = rowSum(gnSum, local) / f32(s.C);
  var gMean = 0.0;
  if (CENTRED) { gMean = rowSum(gSum, local) / f32(s.C); }
  for (var c = lane; c < end; c += LANES) {
    let n = (x[row + c] - mean) * rstd;
    dx[row + c] = rstd * (dy[row + c] * w[c] - n * gnMean - gMean);
  }
}

// Parameters, first stage: an invocation sums dw and db of one column over a strip of rows.
struct StripSizes { T: u32, C: u32, rows: u32 }
@group(0) @binding(0) var<uniform> strips: StripSizes;
@group(0) @binding(5) var<storage, read_write> shareOut: array<f32>; // (strips, 2, C)

@compute @workgroup_size(GROUP)
fn strip(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= strips.C) { return; }
  var dw = 0.0;
  var db = 0.0;
  for (var t = id.y * strips.rows; t < min(strips.T, (id.y + 1u) * strips.rows); t++) {
    let d = dy[t * strips.C + c];
    dw += d * (x[t * strips.C + c] - saved[t].x) * saved[t].y;
    db += d;
  }
  shareOut[2u * id.y * strips.C + c] = dw;
  shareOut[(2u * id.y + 1u) * strips.C + c] = db;
}

// Second stage: the strips of dw (part 0) or db (part 1) are added to the gradient, first to last.
struct SumSizes { C: u32, strips: u32, part: u32 }
@group(0) @binding(0) var<uniform> sums: SumSizes;
@group(0) @binding(1) var<storage, read> shareIn: array<f32>; // (strips, 2, C)
@group(0) @binding(2) var<storage, read_write> grad: array<f32>; // (C)

@compute @workgroup_size(GROUP)
fn addStrips(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= sums.C) { return; }
  var sum = 0.0;
  for (var k = 0u; k < sums.strips; k++) { sum += shareIn[(2u * k + sums.part) * sums.C + c]; }
  grad[c] += sum;
}
