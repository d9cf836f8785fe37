// rmsnorm:   y = x * rstd * w                  rstd = 1 / sqrt(mean(x^2) + eps)
// layernorm: y = (x - mean) * rstd * w + b     rstd = 1 / sqrt(mean((x - mean)^2) + eps)
// With n = (x - mean) * rstd and g = dy * w, both have dx = rstd * (g - n * mean(g * n) - mean(g)), where the last
// term and the mean are absent in rmsnorm; dw = sum over rows of dy * n, db = sum over rows of dy.
// Loops take four columns at once, LANES apart: neighbouring lanes read neighbouring columns, and on a CPU, where a
// turn of a loop costs as much as two loads, there are fewer turns.
override CENTRED: bool; // layernorm
override LANES: u32; // invocations that share a row: 1 where invocations are SIMD lanes of a CPU, else the workgroup
override GROUP: u32; // invocations of a workgroup

struct Sizes { T: u32, C: u32, eps: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, C)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (C)

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

struct Row { t: u32, start: u32, lane: u32, fours: u32, end: u32 }

// The row of an invocation and the ends of its loops over columns: 0 past the last row, which keeps barriers uniform.
fn rowOf(local: u32, group: vec3<u32>, groups: vec3<u32>) -> Row {
  let t = (group.x + group.y * groups.x) * (GROUP / LANES) + local / LANES;
  let end = select(0u, s.C, t < s.T);
  return Row(t, t * s.C, local % LANES, end - end % (4u * LANES), end);
}

fn x4(i: u32) -> vec4<f32> { return vec4(x[i], x[i + LANES], x[i + 2u * LANES], x[i + 3u * LANES]); }
fn w4(i: u32) -> vec4<f32> { return vec4(w[i], w[i + LANES], w[i + 2u * LANES], w[i + 3u * LANES]); }
fn sum4(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

@group(0) @binding(3) var<storage, read> b: array<f32>; // (C)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T, C)
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>; // (T) mean and rstd

fn b4(i: u32) -> vec4<f32> { return vec4(b[i], b[i + LANES], b[i + 2u * LANES], b[i + 3u * LANES]); }

@compute @workgroup_size(GROUP)
fn forward(
  @builtin(local_invocation_index) local: u32,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let r = rowOf(local, group, groups);
  var c = r.lane;
  var mean = 0.0;
  if (CENTRED) {
    var sum = vec4(0.0);
    for (; c < r.fours; c += 4u * LANES) { sum += x4(r.start + c); }
    for (; c < r.end; c += LANES) { sum.x += x[r.start + c]; }
    mean = rowSum(sum4(sum), local) / f32(s.C);
  }
  var squares = vec4(0.0);
  for (c = r.lane; c < r.fours; c += 4u * LANES) {
    let d = x4(r.start + c) - mean;
    squares += d * d;
  }
  for (; c < r.end; c += LANES) {
    let d = x[r.start + c] - mean;
    squares.x += d * d;
  }
  let rstd = 1.0 / sqrt(rowSum(sum4(squares), local) / f32(s.C) + s.eps);
  for (c = r.lane; c < r.fours; c += 4u * LANES) {
    let i = r.start + c;
    var v = (x4(i) - mean) * rstd * w4(c);
    if (CENTRED) { v += b4(c); }
    y[i] = v.x;
    y[i + LANES] = v.y;
    y[i + 2u * LANES] = v.z;
    y[i + 3u * LANES] = v.w;
  }
  for (; c < r.end; c += LANES) {
    var v = (x[r.start + c] - mean) * rstd * w[c];
    if (CENTRED) { v += b[c]; }
    y[r.start + c] = v;
  }
  if (r.lane == 0u && r.t < s.T) { stats[r.t] = vec2(mean, rstd); }
}

@group(0) @binding(3) var<storage, read> dy: array<f32>; // (T, C)
@group(0) @binding(4) var<storage, read> saved: array<vec2<f32>>; // (T)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (T, C)

fn dy4(i: u32) -> vec4<f32> { return vec4(dy[i], dy[i + LANES], dy[i + 2u * LANES], dy[i + 3u * LANES]); }

@compute @workgroup_size(GROUP)
fn backward(
  @builtin(local_invocation_index) local: u32,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let r = rowOf(local, group, groups);
  let mean = saved[min(r.t, s.T - 1u)].x;
  let rstd = saved[min(r.t, s.T - 1u)].y;
  var gSum = vec4(0.0);
  var gnSum = vec4(0.0);
  var c = r.lane;
  for (; c < r.fours; c += 4u * LANES) {
    let g = dy4(r.start + c) * w4(c);
    gSum += g;
    gnSum += g * ((x4(r.start + c) - mean) * rstd);
  }
  for (; c < r.end; c += LANES) {
    let g = dy[r.start + c] * w[c];
    gSum.x += g;
    gnSum.x += g * ((x[r.start + c] - mean) * rstd);
  }
  let gnMean = rowSum(sum4(gnSum), local) / f32(s.C);
  var gMean = 0.0;
  if (CENTRED) { gMean = rowSum(sum4(gSum), local) / f32(s.C); }
  for (c = r.lane; c < r.fours; c += 4u * LANES) {
    let i = r.start + c;
    let v = rstd * (dy4(i) * w4(c) - (x4(i) - mean) * rstd * gnMean - gMean);
    dx[i] = v.x;
    dx[i + LANES] = v.y;
    dx[i + 2u * LANES] = v.z;
    dx[i + 3u * LANES] = v.w;
  }
  for (; c < r.end; c += LANES) {
    let i = r.start + c;
    dx[i] = rstd * (dy[i] * w[c] - (x[i] - mean) * rstd * gnMean - gMean);
  }
}

// Parameters, first stage: an invocation sums dw and db of one column over a strip of rows.
struct StripSizes { T: u32, C: u32, rows: u32 }
@group(0) @binding(0) var<uniform> strips: StripSizes;
@group(0) @binding(5) var<storage, read_write> shareOut: array<f32>; // (strips, 2, C)

@compute @workgroup_size(64)
fn strip(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
  let c = id.x;
  let C = strips.C;
  if (c >= C) { return; }
  var dw = 0.0;
  var db = 0.0;
  let end = min(strips.T, (group.y + 1u) * strips.rows);
  var t = group.y * strips.rows;
  for (; t + 3u < end; t += 4u) {
    let i = t * C + c;
    let d = vec4(dy[i], dy[i + C], dy[i + 2u * C], dy[i + 3u * C]);
    let v = vec4(x[i], x[i + C], x[i + 2u * C], x[i + 3u * C]);
    let mean = vec4(saved[t].x, saved[t + 1u].x, saved[t + 2u].x, saved[t + 3u].x);
    let rstd = vec4(saved[t].y, saved[t + 1u].y, saved[t + 2u].y, saved[t + 3u].y);
    dw += sum4(d * (v - mean) * rstd);
    db += sum4(d);
  }
  for (; t < end; t++) {
    let d = dy[t * C + c];
    dw += d * (x[t * C + c] - saved[t].x) * saved[t].y;
    db += d;
  }
  shareOut[2u * group.y * C + c] = dw;
  shareOut[(2u * group.y + 1u) * C + c] = db;
}

// Second stage: the strips of dw (part 0) or db (part 1) are added to the gradient, first to last.
struct SumSizes { C: u32, strips: u32, part: u32 }
@group(0) @binding(0) var<uniform> sums: SumSizes;
@group(0) @binding(1) var<storage, read> shareIn: array<f32>; // (strips, 2, C)
@group(0) @binding(2) var<storage, read_write> grad: array<f32>; // (C)

@compute @workgroup_size(64)
fn addStrips(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= sums.C) { return; }
  var sum = 0.0;
  for (var k = 0u; k < sums.strips; k++) { sum += shareIn[(2u * k + sums.part) * sums.C + c]; }
  grad[c] += sum;
}
