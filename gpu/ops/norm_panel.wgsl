// The formulas of norm.wgsl over panels, for rows of whole vec4s; every sum has the order that it has there.
// Operands: a: x, b: w, c: bias or dy, declared by operands_panel.wgsl, which stands before this file.
override CENTRED: bool; // layernorm

struct Sizes { T: u32, row0: u32, C: u32, eps: f32 } // rows of the panels, their place in stats, vec4s of a row
@group(0) @binding(0) var<uniform> s: Sizes;

fn sum4(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // (T, C)
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>; // (all rows) mean and rstd

@compute @workgroup_size(8)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= s.T) { return; }
  let start = id.x * s.C;
  let C = f32(4u * s.C);
  var mean = 0.0;
  if (CENTRED) {
    var sum = vec4(0.0);
    for (var k = 0u; k < s.C; k++) { sum += a[start + k]; }
    mean = sum4(sum) / C;
  }
  var squares = vec4(0.0);
  for (var k = 0u; k < s.C; k++) {
    let d = a[start + k] - mean;
    squares += d * d;
  }
  let rstd = 1.0 / sqrt(sum4(squares) / C + s.eps);
  for (var k = 0u; k < s.C; k++) {
    var v = (a[start + k] - mean) * rstd * b[k];
    if (CENTRED) { v += c[k]; }
    y[start + k] = v;
  }
  stats[s.row0 + id.x] = vec2(mean, rstd);
}

@group(0) @binding(4) var<storage, read> saved: array<vec2<f32>>; // (all rows)
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // (T, C)

@compute @workgroup_size(8)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= s.T) { return; }
  let start = id.x * s.C;
  let C = f32(4u * s.C);
  let stat = saved[s.row0 + id.x];
  let mean = stat.x;
  let rstd = stat.y;
  var gSum = vec4(0.0);
  var gnSum = vec4(0.0);
  for (var k = 0u; k < s.C; k++) {
    let g = c[start + k] * b[k];
    gSum += g;
    gnSum += g * ((a[start + k] - mean) * rstd);
  }
  let gnMean = sum4(gnSum) / C;
  var gMean = 0.0;
  if (CENTRED) { gMean = sum4(gSum) / C; }
  for (var k = 0u; k < s.C; k++) {
    dx[start + k] = rstd * (c[start + k] * b[k] - (a[start + k] - mean) * rstd * gnMean - gMean);
  }
}

// Parameters, first stage: an invocation sums dw and db of four columns over a strip of rows.
struct StripSizes { T: u32, row0: u32, C: u32, rows: u32 } // rows a strip; row0 is where a strip begins
@group(0) @binding(0) var<uniform> strips: StripSizes;
@group(0) @binding(5) var<storage, read_write> shares: array<vec4<f32>>; // (all strips, 2, C)

fn normalized(row: u32, column: u32) -> vec4<f32> {
  let stat = saved[strips.row0 + row];
  let i = row * strips.C + column;
  return c[i] * (a[i] - stat.x) * stat.y;
}

@compute @workgroup_size(8)
fn strip(@builtin(global_invocation_id) id: vec3<u32>) {
  let C = strips.C;
  let column = id.x % C;
  let number = id.x / C;
  var t = number * strips.rows;
  if (t >= strips.T) { return; }
  let end = min(strips.T, t + strips.rows);
  var dw = vec4(0.0);
  var db = vec4(0.0);
  for (; t + 3u < end; t += 4u) {
    let i = t * C + column;
    dw += (normalized(t, column) + normalized(t + 1u, column)) + (normalized(t + 2u, column) + normalized(t + 3u, column));
    db += (c[i] + c[i + C]) + (c[i + 2u * C] + c[i + 3u * C]);
  }
  for (; t < end; t++) {
    dw += normalized(t, column);
    db += c[t * C + column];
  }
  let o = 2u * (strips.row0 / strips.rows + number) * C + column;
  shares[o] = dw;
  shares[o + C] = db;
}
