// dropout: y[i] = x[i] * scale where hash32(seed, i) >= threshold, else 0. hash32 is that of core/random.ts; its
// first round depends on the seed alone and comes as `state`. Backward is the same kernel on dy.
struct Sizes { N: u32, state: u32, threshold: u32, scale: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn mix(state: u32, word: u32) -> u32 {
  var h = (state ^ word) * 0x85ebca6bu;
  h = (h ^ (h >> 13u)) * 0xc2b2ae35u;
  return h ^ (h >> 16u);
}

@compute @workgroup_size(64)
fn dropout(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= s.N) { return; }
  y[i] = select(0.0, x[i] * s.scale, mix(s.state, i) >= s.threshold);
}
