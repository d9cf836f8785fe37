// decode: N values of an NF4 matrix as f32, from its value `first` on; `codes` begin `skip` values before it, at a
// multiple of 512. An invocation gives eight; the last one's may reach into the padding of the result.
// nf4.wgsl stands before this file.
struct Sizes { N: u32, first: u32, skip: u32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

fn value(i: u32) -> f32 {
  return nf4Level(codes[(s.skip + i) / 8u], s.first + i) * nf4Scale((s.first + i) / 64u);
}

@compute @workgroup_size(64)
fn decode(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let o = 2u * (id.x + id.y * groups.x * 64u);
  let i = 4u * o;
  if (i >= s.N) { return; }
  if (s.first % 8u == 0u) {
    let word = codes[(s.skip + i) / 8u];
    let scale = nf4Scale((s.first + i) / 64u);
    out[o] = scale * vec4(nf4Level(word, 0u), nf4Level(word, 1u), nf4Level(word, 2u), nf4Level(word, 3u));
    out[o + 1u] = scale * vec4(nf4Level(word, 4u), nf4Level(word, 5u), nf4Level(word, 6u), nf4Level(word, 7u));
  } else {
    out[o] = vec4(value(i), value(i + 1u), value(i + 2u), value(i + 3u));
    out[o + 1u] = vec4(value(i + 4u), value(i + 5u), value(i + 6u), value(i + 7u));
  }
}
