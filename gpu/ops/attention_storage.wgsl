// The rows that a loop of attention.wgsl runs over, as whole tensors: `far0` and `stats0` are 0.
@group(0) @binding(1) var<storage, read> farA: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> farB: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> farStats: array<vec4<f32>>;

