// token: of each row of logits (M,V), loss = lse - logit[target] with lse = log(sum(exp(logit))), the most likely
// token, and with GRADIENT, in place of the logits, scale * (softmax - onehot(target)). Maximum and sum are found in
// one pass (Milakov & Gimelshein 2018): the sum is scaled down whenever the maximum grows.
override GRADIENT: bool;
override LANES: u32; // invocations that share a row: 1 where invocations are SIMD lanes of a CPU, else the workgroup

struct Sizes { M: u32, V: u32, first: u32, scale: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // of all chunks, this one begins at s.first
@group(0) @binding(2) var<storage, read_write> logits: array<f32>; // (M, V)
@group(0) @binding(3) var<storage, read_write> losses: array<f32>; // of all chunks
@group(0) @binding(4) var<storage, read_write> predicted: array<u32>; // of all chunks

const GROUP = 64u;
const LOWEST = -3.4e38;

struct Peak { top: f32, sum: f32, at: u32 } // sum of exp(logit - top), and where top stands, the first if twice
var<workgroup> peaks: array<Peak, GROUP>;

// Takes in the logits at c, c + LANES, c + 2 LANES and c + 3 LANES.
fn take(peak: Peak, v: vec4<f32>, c: u32) -> Peak {
  let top = max(max(v.x, v.y), max(v.z, v.w));
  var next = peak;
  if (top > peak.top) {
    next.top = top;
    next.at = c + LANES * select(select(select(3u, 2u, v.z == top), 1u, v.y == top), 0u, v.x == top);
  }
  let e = exp(v - next.top);
  next.sum = peak.sum * exp(peak.top - next.top) + (e.x + e.y + e.z + e.w);
  return next;
}

fn join(a: Peak, b: Peak) -> Peak {
  let top = max(a.top, b.top);
  let first = a.top > b.top || (a.top == b.top && a.at < b.at);
  return Peak(top, a.sum * exp(a.top - top) + b.sum * exp(b.top - top), select(b.at, a.at, first));
}

// The peak of a row over its lanes, in an order that depends on nothing but LANES.
fn rowPeak(share: Peak, local: u32) -> Peak {
  if (LANES == 1u) { return share; }
  peaks[local] = share;
  for (var step = GROUP / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (local < step) { peaks[local] = join(peaks[local], peaks[local + step]); }
  }
  workgroupBarrier();
  return peaks[0];
}

@compute @workgroup_size(GROUP)
fn token(
  @builtin(local_invocation_index) local: u32,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let m = (group.x + group.y * groups.x) * (GROUP / LANES) + local / LANES;
  let lane = local % LANES;
  let end = select(0u, s.V, m < s.M); // no columns past the last row: barriers stay uniform
  let row = m * s.V;
  var share = Peak(LOWEST, 0.0, 0u);
  var c = lane;
  for (; c + 3u * LANES < end; c += 4u * LANES) {
    let i = row + c;
    share = take(share, vec4(logits[i], logits[i + LANES], logits[i + 2u * LANES], logits[i + 3u * LANES]), c);
  }
  for (; c < end; c += LANES) { share = take(share, vec4(logits[row + c], vec3(LOWEST)), c); }
  let label = targets[s.first + min(m, s.M - 1u)];
  let truth = logits[min(m, s.M - 1u) * s.V + label]; // before the gradient takes its place
  let peak = rowPeak(share, local);
  if (lane == 0u && m < s.M) {
    losses[s.first + m] = peak.top - truth + log(peak.sum);
    predicted[s.first + m] = peak.at;
  }
  if (GRADIENT) {
    let factor = s.scale / peak.sum;
    for (c = lane; c < end; c += LANES) {
      logits[row + c] = factor * exp(logits[row + c] - peak.top) - select(0.0, s.scale, c == label);
    }
  }
}

// total: loss = scale * sum(losses), one workgroup.
struct Total { M: u32, scale: f32 }
@group(0) @binding(0) var<uniform> t: Total;
@group(0) @binding(1) var<storage, read> all: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
var<workgroup> shares: array<f32, GROUP>;

@compute @workgroup_size(GROUP)
fn total(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < t.M; i += GROUP) { sum += all[i]; }
  shares[lane] = sum;
  workgroupBarrier();
  if (lane != 0u) { return; }
  for (var i = 1u; i < GROUP; i++) { sum += shares[i]; }
  loss[0] = t.scale * sum;
}
