// Inner products of two gradients a and b: (a.b, a.a, b.b, |a-b|^2), which say how alike they are. |a-b|^2 is summed by
// itself: taken from the other three it would vanish in their rounding where a and b are nearly equal.
// Invocation i of `shares` adds up every shares-th vec4; the host adds up the shares. The last vec4 may reach into the
// padding, which counts as zero.
struct Sizes { N: u32, first: u32, shares: u32 }
@group(0) @binding(0) var<uniform> u: Sizes;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;

@compute @workgroup_size(64)
fn products(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= u.shares) { return; }
  var sum = vec4<f32>(0.0);
  for (var j = id.x; 4u * j < u.N; j += u.shares) {
    let inside = vec4<u32>(4u * j) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(u.N);
    let x = select(vec4<f32>(0.0), a[j], inside);
    let y = select(vec4<f32>(0.0), b[j], inside);
    let d = x - y;
    sum += vec4<f32>(dot(x, y), dot(x, x), dot(y, y), dot(d, d));
  }
  sums[u.first + id.x] = sum;
}
