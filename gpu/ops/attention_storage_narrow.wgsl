// Declarations before attention.wgsl for heads up to 32 wide: the rows that a loop runs over come as whole tensors.
@group(0) @binding(1) var<storage, read> farA: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> farB: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> farStats: array<vec4<f32>>;

alias Row = array<vec4<f32>, 8>;

