// The operands of a kernel as panels: windows of 64 KiB in uniform bindings.
@group(0) @binding(1) var<uniform> a: array<vec4<f32>, 4096>;
@group(0) @binding(2) var<uniform> b: array<vec4<f32>, 4096>;
@group(0) @binding(3) var<uniform> c: array<vec4<f32>, 4096>;

