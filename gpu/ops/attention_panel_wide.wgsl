// Declarations before attention.wgsl for heads up to 64 wide on software Vulkan: the rows that a loop runs over come as
// panels, windows of 64 KiB that start at row `far0` (`stats0`).
@group(0) @binding(1) var<uniform> farA: array<vec4<f32>, 4096>;
@group(0) @binding(2) var<uniform> farB: array<vec4<f32>, 4096>;
@group(0) @binding(3) var<uniform> farStats: array<vec4<f32>, 4096>;

alias Row = array<vec4<f32>, 16>;

