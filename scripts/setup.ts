/**
 * Makes sure that WebGPU finds an adapter: where there is none, it installs Mesa's software Vulkan driver with apt,
 * or says in one line what to install. It never asks and never changes anything else.
 */
const quiet = Deno.args.includes("--quiet");
const PACKAGES = ["libvulkan1", "mesa-vulkan-drivers"];

async function run(command: string, args: string[]): Promise<boolean> {
  try {
    const child = new Deno.Command(command, {
      args,
      stdout: "null",
      stderr: "null",
      env: { DEBIAN_FRONTEND: "noninteractive" },
    });
    return (await child.output()).success;
  } catch {
    return false;
  }
}

const hint = `No WebGPU adapter: install a Vulkan driver, on Debian or Ubuntu with "apt-get install -y ${
  PACKAGES.join(" ")
}"`;
if (!await navigator.gpu?.requestAdapter()) {
  const mayInstall = Deno.build.os === "linux" && Deno.uid() === 0 && await run("apt-get", ["--version"]);
  if (mayInstall) {
    console.error(`No WebGPU adapter: installing ${PACKAGES.join(" and ")} with apt-get`);
    await run("apt-get", ["update", "-qq"]);
    const installed = await run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...PACKAGES]);
    if (!installed && !quiet) {
      console.error(`${hint} (apt-get failed here)`);
      Deno.exit(1);
    }
  } else if (!quiet) {
    console.error(hint);
    Deno.exit(1);
  }
}
