// update: AdamW (Loshchilov & Hutter 2019), decay first, as torch.optim.AdamW orders it:
//   p *= 1 - lr * decay;  m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g^2
//   p -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// The host works out the scalars in f64: 1 - beta2 in f32 would be off by 3e-5. With CLIP the gradient counts
// min(1, maxNorm / (norm + 1e-6)) times, as in torch's clip_grad_norm_. The last vec4 may reach into the padding.
// The operands are a: gradient, b: the norm; operands_panel.wgsl or operands_storage.wgsl, which stand before this
// file, declare them.
override CLIP: bool;

struct Update {
  N: u32, keep: f32, beta2: f32, new1: f32, new2: f32, rate: f32, root2: f32, eps: f32, maxNorm: f32,
}
@group(0) @binding(0) var<uniform> u: Update;
@group(0) @binding(3) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4<f32>>;

@compute @workgroup_size(64)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i >= u.N) { return; }
  var grad = a[i];
  if (CLIP) { grad *= min(1.0, u.maxNorm / (b[0].x + 1e-6)); }
  let m0 = m[i];
  let m1 = m0 + u.new1 * (grad - m0);
  let v1 = u.beta2 * v[i] + u.new2 * (grad * grad);
  m[i] = m1;
  v[i] = v1;
  p[i] = u.keep * p[i] - u.rate * m1 / (sqrt(v1) / u.root2 + u.eps);
}

// The norm, first stage: invocation i of `shares` adds up the squares of every shares-th vec4, without the padding.
struct Squares { N: u32, first: u32, shares: u32 }
@group(0) @binding(0) var<uniform> q: Squares;
@group(0) @binding(2) var<storage, read_write> sharesOut: array<f32>;

@compute @workgroup_size(64)
fn squares(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= q.shares) { return; }
  var sum = 0.0;
  for (var j = id.x; j < q.N / 4u; j += q.shares) {
    let four = a[j];
    sum += dot(four, four);
  }
  if (id.x == 0u) {
    for (var k = 0u; k < q.N % 4u; k++) {
      let tail = a[q.N / 4u][k];
      sum += tail * tail;
    }
  }
  sharesOut[q.first + id.x] = sum;
}

// Second stage, one workgroup: the root of the sum over the shares of all tensors.
struct Root { shares: u32 }
@group(0) @binding(0) var<uniform> r: Root;
@group(0) @binding(1) var<storage, read> sharesIn: array<f32>;
@group(0) @binding(2) var<storage, read_write> normOut: array<f32>;
var<workgroup> lanes: array<f32, 64>;

@compute @workgroup_size(64)
fn root(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < r.shares; i += 64u) { sum += sharesIn[i]; }
  lanes[lane] = sum;
  workgroupBarrier();
  if (lane != 0u) { return; }
  for (var i = 1u; i < 64u; i++) { sum += lanes[i]; }
  normOut[0] = sqrt(sum);
}
