// dropout: y[i] = a[i] * scale where hash32(seed, i) >= threshold, else 0. hash32 is that of core/random.ts; its
// first round depends on the seed alone and comes as `state`. Backward is the same kernel on dy.
// Four values an invocation; a buffer is always a multiple of 16 bytes, so the last vec4 may reach past N harmlessly.
// The operand is declared by operands_panel.wgsl or operands_storage.wgsl, which stand before this file.
struct Sizes { N: u32, first: u32, state: u32, threshold: u32, scale: f32 } // first: what i starts from
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn mix(word: vec4<u32>) -> vec4<u32> {
  var h = (vec4(s.state) ^ word) * 0x85ebca6bu;
  h = (h ^ (h >> vec4(13u))) * 0xc2b2ae35u;
  return h ^ (h >> vec4(16u));
}

@compute @workgroup_size(64)
fn dropout(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i >= s.N) { return; }
  let hash = mix(s.first + 4u * i + vec4(0u, 1u, 2u, 3u));
  y[i] = select(vec4(0.0), a[i] * s.scale, hash >= vec4(s.threshold));
}
