// activate: y = x * gate(x), where gate is a logistic function of inner(x), or the normal distribution function:
//   silu:       inner = x
//   quick_gelu: inner = 1.702 x
//   gelu_tanh:  inner = 2 sqrt(2/pi) (x + 0.044715 x^3), since 1 + tanh(u) = 2 sigmoid(2u)
//   gelu:       Phi(x)
// swiglu: y = silu(gate) * up
// The operands are a: x or the gate, b: dy or up, c: dy of swiglu; operands_panel.wgsl or operands_storage.wgsl, which
// stand before this file, declare them. Four values an invocation; a buffer is always a multiple of
// 16 bytes, so the last vec4 may reach past N harmlessly.
override KIND: u32; // 0 gelu, 1 gelu_tanh, 2 quick_gelu, 3 silu

struct Sizes { N: u32 }
@group(0) @binding(0) var<uniform> s: Sizes;

// Values past +-88 would overflow exp, which WGSL leaves undefined; the logistic is 0 or 1 there in f32.
fn sigmoid(v: vec4<f32>) -> vec4<f32> {
  return 1.0 / (1.0 + exp(-clamp(v, vec4(-87.0), vec4(87.0))));
}

// Half of erfc(|v| / sqrt 2) by Abramowitz & Stegun 7.1.26 (1964), error at most 7.5e-8, mirrored for positive v.
fn normalCdf(v: vec4<f32>) -> vec4<f32> {
  let z = min(abs(v) * 0.70710678, vec4(9.0));
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  let tail = 0.5 * poly * exp(-z * z);
  return select(tail, 1.0 - tail, v > vec4(0.0));
}

fn inner(v: vec4<f32>) -> vec4<f32> {
  if (KIND == 1u) { return 1.5957691216 * v * (1.0 + 0.044715 * v * v); }
  if (KIND == 2u) { return 1.702 * v; }
  return v;
}

fn innerSlope(v: vec4<f32>) -> vec4<f32> {
  if (KIND == 1u) { return 1.5957691216 * (1.0 + 0.134145 * v * v); }
  if (KIND == 2u) { return vec4(1.702); }
  return vec4(1.0);
}

@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i >= s.N) { return; }
  let v = a[i];
  if (KIND == 0u) { y[i] = v * normalCdf(v); } else { y[i] = v * sigmoid(inner(v)); }
}

@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

// d(x gate(x)) = gate + x gate'; the slope of Phi is the normal density, that of a logistic g is g (1 - g) inner'.
@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i >= s.N) { return; }
  let v = a[i];
  if (KIND == 0u) {
    let z = min(abs(v), vec4(13.0));
    dx[i] = b[i] * (normalCdf(v) + v * 0.39894228 * exp(-0.5 * z * z));
  } else {
    let g = sigmoid(inner(v));
    dx[i] = b[i] * (g + v * g * (1.0 - g) * innerSlope(v));
  }
}

@group(0) @binding(3) var<storage, read_write> product: array<vec4<f32>>;

@compute @workgroup_size(64)
fn swiglu(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i >= s.N) { return; }
  let gate = a[i];
  product[i] = gate * sigmoid(gate) * b[i];
}

override WANT_GATE: bool = true;
override WANT_UP: bool = true;
@group(0) @binding(4) var<storage, read_write> dGate: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dUp: array<vec4<f32>>;

@compute @workgroup_size(64)
fn swigluBackward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = id.x + id.y * groups.x * 64u;
  if (4u * i >= s.N) { return; }
  let gate = a[i];
  let dProduct = c[i];
  let g = sigmoid(gate);
  if (WANT_GATE) { dGate[i] = dProduct * b[i] * g * (1.0 + gate * (1.0 - g)); }
  if (WANT_UP) { dUp[i] = dProduct * gate * g; }
}
