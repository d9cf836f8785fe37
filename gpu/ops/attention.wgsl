// out[t] = sum over s of p[t,s] v[s]     p[t,s] = exp(scale q[t].k[s] - lse[t])     s in the range of t
// With delta[t] = dout[t].out[t] and ds[t,s] = p[t,s] (dout[t].v[s] - delta[t]):
// dq[t] = scale * sum over s of ds[t,s] k[s];  dk[s] = scale * sum over t of ds[t,s] q[t];  dv[s] = sum of p[t,s] dout[t]
// The softmax runs along with the loop (Milakov & Gimelshein 2018), so that no (T, S) matrix exists.
//
// An invocation owns two neighbouring rows, a and b, of one head and loops over the eight next rows of the other side
// ("far": keys for the owner of queries, queries for the owner of keys), which it reads once for both. Rows past the
// end of a range are read as its last row and masked.
//
// A dispatch may show a part of the far rows only, begin to end; those of a range before it have been seen by dispatches
// before this one, which left their sums in the outputs.
// farA, farB, farStats and Row, one row of one head, are declared by the attention_*.wgsl that stands before this file.
override SIZE: u32; // invocations a workgroup

struct Sizes {
  rows: u32, row0: u32,     // the owned rows of this dispatch, and the first of them
  far0: u32, stats0: u32,   // the rows at which farA and farB, and farStats, start
  begin: u32, end: u32,     // the far rows that this dispatch sees
  H: u32, K: u32,           // heads of queries, and of keys and values
  D4: u32,                  // head width / 4, at most 32: no constant, or drivers unroll its loops to no end
  scale: f32,
  wants: u32,               // what to write: bit 0 lse, bit 1 dk, bit 2 dv
}

const LSE = 1u;
const DK = 2u;
const DV = 4u;

@group(0) @binding(0) var<uniform> s: Sizes;

struct Eight { r0: u32, r1: u32, r2: u32, r3: u32, r4: u32, r5: u32, r6: u32, r7: u32 }

// Where one head of the far rows j to j + 7 starts, in vec4s.
fn eight(j: u32, last: u32, width: u32, head: u32) -> Eight {
  let o = head * s.D4;
  return Eight(
    (j - s.far0) * width + o,
    (min(j + 1u, last) - s.far0) * width + o,
    (min(j + 2u, last) - s.far0) * width + o,
    (min(j + 3u, last) - s.far0) * width + o,
    (min(j + 4u, last) - s.far0) * width + o,
    (min(j + 5u, last) - s.far0) * width + o,
    (min(j + 6u, last) - s.far0) * width + o,
    (min(j + 7u, last) - s.far0) * width + o,
  );
}

fn a03(r: Eight, d: u32) -> mat4x4<f32> { return mat4x4(farA[r.r0 + d], farA[r.r1 + d], farA[r.r2 + d], farA[r.r3 + d]); }
fn a47(r: Eight, d: u32) -> mat4x4<f32> { return mat4x4(farA[r.r4 + d], farA[r.r5 + d], farA[r.r6 + d], farA[r.r7 + d]); }
fn b03(r: Eight, d: u32) -> mat4x4<f32> { return mat4x4(farB[r.r0 + d], farB[r.r1 + d], farB[r.r2 + d], farB[r.r3 + d]); }
fn b47(r: Eight, d: u32) -> mat4x4<f32> { return mat4x4(farB[r.r4 + d], farB[r.r5 + d], farB[r.r6 + d], farB[r.r7 + d]); }

// What this dispatch sees of a range, and whether one before it saw some.
fn shown(range: vec2<u32>) -> vec2<u32> { return vec2(max(range.x, s.begin), min(range.y, s.end)); }
fn goesOn(range: vec2<u32>) -> bool { return range.x < s.begin; } // an empty range starts above every row
fn onto(on: bool, before: vec4<f32>, v: vec4<f32>) -> vec4<f32> { return select(v, before + v, on); }

// v where j to j + 3 lie inside the range, else 0: also where v is infinite.
fn within(j: u32, range: vec2<u32>, v: vec4<f32>) -> vec4<f32> {
  let at = vec4(j, j + 1u, j + 2u, j + 3u);
  return select(vec4(0.0), v, (at >= vec4(range.x)) & (at < vec4(range.y)));
}

fn greatest(j: u32, range: vec2<u32>, v: vec4<f32>) -> f32 {
  let at = vec4(j, j + 1u, j + 2u, j + 3u);
  let m = select(vec4(LOWEST), v, (at >= vec4(range.x)) & (at < vec4(range.y)));
  return max(max(m.x, m.y), max(m.z, m.w));
}

fn sum4(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

const LOWEST = -3.0e38;

@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;             // (T, H, D)
@group(0) @binding(4) var<storage, read> ranges: array<vec2<u32>>;        // (T), of keys
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;     // (T, H, D)
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;           // (T, H)

@compute @workgroup_size(SIZE)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
  if (2u * id.x >= s.rows) { return; }
  let head = id.y;
  let ta = s.row0 + 2u * id.x;
  let tb = min(ta + 1u, s.row0 + s.rows - 1u);
  let qa = (ta * s.H + head) * s.D4;
  let qb = (tb * s.H + head) * s.D4;
  var va: Row;
  var vb: Row;
  var oa: Row;
  var ob: Row;
  for (var d = 0u; d < s.D4; d++) {
    va[d] = s.scale * q[qa + d];
    vb[d] = s.scale * q[qb + d];
    oa[d] = vec4(0.0);
    ob[d] = vec4(0.0);
  }
  let ra = shown(ranges[ta]);
  let rb = shown(ranges[tb]);
  let end = max(ra.y, rb.y);
  var ma = LOWEST; // the greatest score so far, and the sum of exp(score - greatest)
  var mb = LOWEST;
  var la = 0.0;
  var lb = 0.0;
  if (goesOn(ranges[ta])) { // relative to lse, the sum so far is one
    ma = lse[ta * s.H + head];
    la = 1.0;
    for (var d = 0u; d < s.D4; d++) { oa[d] = out[qa + d]; }
  }
  if (goesOn(ranges[tb])) {
    mb = lse[tb * s.H + head];
    lb = 1.0;
    for (var d = 0u; d < s.D4; d++) { ob[d] = out[qb + d]; }
  }
  for (var j = min(ra.x, rb.x); j < end; j += 8u) {
    let r = eight(j, end - 1u, s.K * s.D4, head / (s.H / s.K));
    var a0 = vec4(0.0);
    var a1 = vec4(0.0);
    var b0 = vec4(0.0);
    var b1 = vec4(0.0);
    for (var d = 0u; d < s.D4; d++) {
      let k0 = a03(r, d);
      let k1 = a47(r, d);
      let a = va[d];
      a0 += a * k0;
      a1 += a * k1;
      let b = vb[d];
      b0 += b * k0;
      b1 += b * k1;
    }
    let na = max(ma, max(greatest(j, ra, a0), greatest(j + 4u, ra, a1)));
    let nb = max(mb, max(greatest(j, rb, b0), greatest(j + 4u, rb, b1)));
    let ca = exp(ma - na);
    let cb = exp(mb - nb);
    a0 = within(j, ra, exp(a0 - na));
    a1 = within(j + 4u, ra, exp(a1 - na));
    b0 = within(j, rb, exp(b0 - nb));
    b1 = within(j + 4u, rb, exp(b1 - nb));
    la = la * ca + sum4(a0 + a1);
    lb = lb * cb + sum4(b0 + b1);
    ma = na;
    mb = nb;
    for (var d = 0u; d < s.D4; d++) {
      let v0 = b03(r, d);
      let v1 = b47(r, d);
      oa[d] = oa[d] * ca + v0 * a0 + v1 * a1;
      ob[d] = ob[d] * cb + v0 * b0 + v1 * b1;
    }
  }
  let ia = select(0.0, 1.0 / la, la > 0.0);
  let ib = select(0.0, 1.0 / lb, lb > 0.0);
  for (var d = 0u; d < s.D4; d++) {
    out[qa + d] = oa[d] * ia;
    out[qb + d] = ob[d] * ib;
  }
  if ((s.wants & LSE) != 0u) {
    lse[ta * s.H + head] = ma + log(la);
    lse[tb * s.H + head] = mb + log(lb);
  }
}

struct DeltaSizes { rows: u32, D4: u32 }
@group(0) @binding(0) var<uniform> all: DeltaSizes;
@group(0) @binding(1) var<storage, read> outSaved: array<vec4<f32>>;      // (T, H, D)
@group(0) @binding(2) var<storage, read> dout: array<vec4<f32>>;          // (T, H, D)
@group(0) @binding(3) var<storage, read> lseSaved: array<f32>;            // (T, H)
@group(0) @binding(4) var<storage, read_write> statsOut: array<vec2<f32>>; // (T, H) lse and delta

@compute @workgroup_size(SIZE)
fn delta(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * SIZE;
  if (i >= all.rows) { return; }
  var sum = vec4(0.0);
  for (var d = 0u; d < all.D4; d++) { sum += outSaved[i * all.D4 + d] * dout[i * all.D4 + d]; }
  statsOut[i] = vec2(lseSaved[i], sum4(sum));
}

@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;            // (T, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec2<f32>>;         // (T, H) lse and delta
@group(0) @binding(6) var<storage, read> queryRanges: array<vec2<u32>>;   // (T), of keys
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;      // (T, H, D)

@compute @workgroup_size(SIZE)
fn queries(@builtin(global_invocation_id) id: vec3<u32>) {
  if (2u * id.x >= s.rows) { return; }
  let head = id.y;
  let ta = s.row0 + 2u * id.x;
  let tb = min(ta + 1u, s.row0 + s.rows - 1u);
  let qa = (ta * s.H + head) * s.D4;
  let qb = (tb * s.H + head) * s.D4;
  var va: Row; // scaled queries
  var vb: Row;
  var ga: Row; // gradients of the output
  var gb: Row;
  var oa: Row; // gradients of the queries
  var ob: Row;
  for (var d = 0u; d < s.D4; d++) {
    va[d] = s.scale * q[qa + d];
    vb[d] = s.scale * q[qb + d];
    ga[d] = dy[qa + d];
    gb[d] = dy[qb + d];
    oa[d] = vec4(0.0);
    ob[d] = vec4(0.0);
  }
  let ra = shown(queryRanges[ta]);
  let rb = shown(queryRanges[tb]);
  let sa = stats[ta * s.H + head];
  let sb = stats[tb * s.H + head];
  let end = max(ra.y, rb.y);
  for (var j = min(ra.x, rb.x); j < end; j += 8u) {
    let r = eight(j, end - 1u, s.K * s.D4, head / (s.H / s.K));
    var a0 = vec4(0.0); // scores
    var a1 = vec4(0.0);
    var b0 = vec4(0.0);
    var b1 = vec4(0.0);
    var da0 = vec4(0.0); // gradients of the probabilities
    var da1 = vec4(0.0);
    var db0 = vec4(0.0);
    var db1 = vec4(0.0);
    for (var d = 0u; d < s.D4; d++) {
      let k0 = a03(r, d);
      let k1 = a47(r, d);
      let a = va[d];
      a0 += a * k0;
      a1 += a * k1;
      let b = vb[d];
      b0 += b * k0;
      b1 += b * k1;
      let v0 = b03(r, d);
      let v1 = b47(r, d);
      let ea = ga[d];
      da0 += ea * v0;
      da1 += ea * v1;
      let eb = gb[d];
      db0 += eb * v0;
      db1 += eb * v1;
    }
    a0 = within(j, ra, exp(a0 - sa.x) * (da0 - sa.y));
    a1 = within(j + 4u, ra, exp(a1 - sa.x) * (da1 - sa.y));
    b0 = within(j, rb, exp(b0 - sb.x) * (db0 - sb.y));
    b1 = within(j + 4u, rb, exp(b1 - sb.x) * (db1 - sb.y));
    for (var d = 0u; d < s.D4; d++) {
      let k0 = a03(r, d);
      let k1 = a47(r, d);
      oa[d] += k0 * a0 + k1 * a1;
      ob[d] += k0 * b0 + k1 * b1;
    }
  }
  let onA = goesOn(queryRanges[ta]);
  let onB = goesOn(queryRanges[tb]);
  for (var d = 0u; d < s.D4; d++) {
    let ya = onto(onA, dq[qa + d], s.scale * oa[d]); // both are read before one is written: they may be the same row
    let yb = onto(onB, dq[qb + d], s.scale * ob[d]);
    dq[qa + d] = ya;
    dq[qb + d] = yb;
  }
}

@group(0) @binding(4) var<storage, read> k: array<vec4<f32>>;             // (S, K, D)
@group(0) @binding(5) var<storage, read> v: array<vec4<f32>>;             // (S, K, D)
@group(0) @binding(6) var<storage, read> keyRanges: array<vec2<u32>>;     // (S), of queries
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;      // (S, K, D)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;      // (S, K, D)

// lse and delta of query t; two heads lie in one vec4.
fn statsOf(t: u32, head: u32) -> vec2<f32> {
  let i = (t - s.stats0) * s.H + head;
  let pair = farStats[i / 2u];
  return select(pair.xy, pair.zw, (i & 1u) == 1u);
}

struct Four { lse: vec4<f32>, delta: vec4<f32> }

fn fourStats(j: u32, last: u32, head: u32) -> Four {
  let a = statsOf(min(j, last), head);
  let b = statsOf(min(j + 1u, last), head);
  let c = statsOf(min(j + 2u, last), head);
  let d = statsOf(min(j + 3u, last), head);
  return Four(vec4(a.x, b.x, c.x, d.x), vec4(a.y, b.y, c.y, d.y));
}

@compute @workgroup_size(SIZE)
fn keys(@builtin(global_invocation_id) id: vec3<u32>) {
  if (2u * id.x >= s.rows) { return; }
  let kvHead = id.y;
  let wantsDk = (s.wants & DK) != 0u;
  let wantsDv = (s.wants & DV) != 0u;
  let group = s.H / s.K;
  let ia = s.row0 + 2u * id.x;
  let ib = min(ia + 1u, s.row0 + s.rows - 1u);
  let ka = (ia * s.K + kvHead) * s.D4;
  let kb = (ib * s.K + kvHead) * s.D4;
  var ua: Row; // scaled keys
  var ub: Row;
  var va: Row; // values
  var vb: Row;
  var dua: Row;
  var dub: Row;
  var dva: Row;
  var dvb: Row;
  for (var d = 0u; d < s.D4; d++) {
    ua[d] = s.scale * k[ka + d];
    ub[d] = s.scale * k[kb + d];
    va[d] = v[ka + d];
    vb[d] = v[kb + d];
    dua[d] = vec4(0.0);
    dub[d] = vec4(0.0);
    dva[d] = vec4(0.0);
    dvb[d] = vec4(0.0);
  }
  let ra = shown(keyRanges[ia]);
  let rb = shown(keyRanges[ib]);
  let start = min(ra.x, rb.x);
  let end = max(ra.y, rb.y);
  for (var head = kvHead * group; head < (kvHead + 1u) * group; head++) {
    for (var j = start; j < end; j += 8u) {
      let r = eight(j, end - 1u, s.H * s.D4, head);
      var a0 = vec4(0.0);
      var a1 = vec4(0.0);
      var b0 = vec4(0.0);
      var b1 = vec4(0.0);
      var da0 = vec4(0.0);
      var da1 = vec4(0.0);
      var db0 = vec4(0.0);
      var db1 = vec4(0.0);
      for (var d = 0u; d < s.D4; d++) {
        let q0 = a03(r, d);
        let q1 = a47(r, d);
        let a = ua[d];
        a0 += a * q0;
        a1 += a * q1;
        let b = ub[d];
        b0 += b * q0;
        b1 += b * q1;
        if (wantsDk) {
          let g0 = b03(r, d);
          let g1 = b47(r, d);
          let ea = va[d];
          da0 += ea * g0;
          da1 += ea * g1;
          let eb = vb[d];
          db0 += eb * g0;
          db1 += eb * g1;
        }
      }
      let s0 = fourStats(j, end - 1u, head);
      let s1 = fourStats(j + 4u, end - 1u, head);
      a0 = within(j, ra, exp(a0 - s0.lse));
      a1 = within(j + 4u, ra, exp(a1 - s1.lse));
      b0 = within(j, rb, exp(b0 - s0.lse));
      b1 = within(j + 4u, rb, exp(b1 - s1.lse));
      if (wantsDv) {
        for (var d = 0u; d < s.D4; d++) {
          let g0 = b03(r, d);
          let g1 = b47(r, d);
          dva[d] += g0 * a0 + g1 * a1;
          dvb[d] += g0 * b0 + g1 * b1;
        }
      }
      if (wantsDk) {
        a0 *= da0 - s0.delta;
        a1 *= da1 - s1.delta;
        b0 *= db0 - s0.delta;
        b1 *= db1 - s1.delta;
        for (var d = 0u; d < s.D4; d++) {
          let q0 = a03(r, d);
          let q1 = a47(r, d);
          dua[d] += q0 * a0 + q1 * a1;
          dub[d] += q0 * b0 + q1 * b1;
        }
      }
    }
  }
  let onA = goesOn(keyRanges[ia]);
  let onB = goesOn(keyRanges[ib]);
  for (var d = 0u; d < s.D4; d++) {
    if (wantsDk) {
      let ya = onto(onA, dk[ka + d], s.scale * dua[d]);
      let yb = onto(onB, dk[kb + d], s.scale * dub[d]);
      dk[ka + d] = ya;
      dk[kb + d] = yb;
    }
    if (wantsDv) {
      let ya = onto(onA, dv[ka + d], dva[d]);
      let yb = onto(onB, dv[kb + d], dvb[d]);
      dv[ka + d] = ya;
      dv[kb + d] = yb;
    }
  }
}
