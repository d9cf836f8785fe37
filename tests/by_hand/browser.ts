/**
 * A headless Chromium over its DevTools protocol: pages, keys, files, pictures of what is shown.
 * It uses a browser that is installed, named by the variable CHROMIUM or found on the path, and refuses to go on without.
 */
export interface Page {
  /** Sends a command to the page's target. */
  call<T = Record<string, unknown>>(method: string, params?: object): Promise<T>;
  go(url: string): Promise<void>;
  /** The value of an expression in the page; promises are awaited. */
  evaluate<T>(expression: string): Promise<T>;
  /** Waits until the expression is true. @throws Error after ten seconds */
  until(expression: string): Promise<void>;
  /** Presses and releases a key such as "Tab", "Enter", " " or "a". */
  press(key: string): Promise<void>;
  /** Chooses files in the input that the selector finds. */
  choose(selector: string, files: string[]): Promise<void>;
  /** Drags files over what the selector finds and lets them go there. */
  drop(selector: string, files: string[]): Promise<void>;
  /** Sets the window's size in CSS pixels and the colour scheme. */
  look(width: number, height: number, scheme: "light" | "dark"): Promise<void>;
  /** A PNG of the whole page. */
  picture(path: string): Promise<void>;
  /** Lines of the console, errors of scripts and requests to other origins so far. */
  problems: string[];
  /** Addresses asked for so far. */
  requests: string[];
}

interface Message {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: unknown;
  error?: { message: string };
  sessionId?: string;
}

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--remote-debugging-port=0",
];

/** Runs `work` with a page of a fresh browser, then ends the browser. */
export async function withPage(origin: string, work: (page: Page) => Promise<void>): Promise<void> {
  const profile = await Deno.makeTempDir();
  const command = new Deno.Command(Deno.env.get("CHROMIUM") ?? "chromium", {
    args: [...FLAGS, `--user-data-dir=${profile}`, "about:blank"],
    stdout: "null",
    stderr: "null",
  });
  const browser = command.spawn();
  try {
    const socket = new WebSocket(await debuggerAddress(profile));
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    await work(await openPage(socket, origin));
    socket.close();
  } finally {
    browser.kill();
    await browser.status;
    await Deno.remove(profile, { recursive: true }).catch(() => {}); // the browser may still be writing
  }
}

async function debuggerAddress(profile: string): Promise<string> {
  for (let n = 0; n < 200; n++) {
    try {
      const [port, path] = (await Deno.readTextFile(`${profile}/DevToolsActivePort`)).split("\n");
      return `ws://127.0.0.1:${port}${path}`;
    } catch {
      await new Promise((wake) => setTimeout(wake, 100));
    }
  }
  throw new Error("Cannot start the browser: it opened no debugging port within 20 s");
}

async function openPage(socket: WebSocket, origin: string): Promise<Page> {
  const open = new Map<number, PromiseWithResolvers<unknown>>();
  const problems: string[] = [], requests: string[] = [];
  const target: { sessionId?: string } = {};
  let last = 0;
  socket.onmessage = ({ data }) => {
    const { id, method, params, result, error } = JSON.parse(data) as Message;
    if (id !== undefined) {
      if (error) open.get(id)!.reject(new Error(error.message));
      else open.get(id)!.resolve(result);
    }
    if (method === "Network.requestWillBeSent") requests.push((params!.request as { url: string }).url);
    const trouble = method && told(method, params!, origin);
    if (trouble) problems.push(trouble);
  };
  const call = <T>(method: string, params: object = {}): Promise<T> => {
    const answer = Promise.withResolvers<unknown>();
    open.set(++last, answer);
    socket.send(JSON.stringify({ id: last, method, params, ...target }));
    return answer.promise as Promise<T>;
  };
  const { targetId } = await call<{ targetId: string }>("Target.createTarget", { url: "about:blank" });
  const attached = await call<{ sessionId: string }>("Target.attachToTarget", { targetId, flatten: true });
  target.sessionId = attached.sessionId;
  for (const domain of ["Page", "Runtime", "Log", "Network", "DOM"]) await call(`${domain}.enable`);

  const evaluate = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = await call<{ result: { value: T }; exceptionDetails?: object }>(
      "Runtime.evaluate",
      { expression, awaitPromise: true, returnByValue: true },
    );
    if (exceptionDetails) {
      throw new Error(`Cannot evaluate ${expression}: ${JSON.stringify(exceptionDetails)}`);
    }
    return result.value;
  };
  const until = async (expression: string) => {
    for (let n = 0; n < 100; n++) {
      if (await evaluate<boolean>(expression)) return;
      await new Promise((wake) => setTimeout(wake, 100));
    }
    throw new Error(`Cannot go on: this did not become true: ${expression}`);
  };
  return {
    call,
    evaluate,
    until,
    problems,
    requests,
    async go(url) {
      await call("Page.navigate", { url });
      await until(`document.readyState === "complete"`);
    },
    async press(key) {
      const code = { Tab: 9, Enter: 13, " ": 32, ArrowRight: 39, ArrowDown: 40 }[key];
      const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
      const event = { key, code: key === " " ? "Space" : key, windowsVirtualKeyCode: code, text };
      await call("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", ...event });
      await call("Input.dispatchKeyEvent", { type: "keyUp", ...event, text: undefined });
    },
    async choose(selector, files) {
      const { root } = await call<{ root: { nodeId: number } }>("DOM.getDocument");
      const { nodeId } = await call<{ nodeId: number }>("DOM.querySelector", {
        nodeId: root.nodeId,
        selector,
      });
      await call("DOM.setFileInputFiles", { nodeId, files });
    },
    async drop(selector, files) {
      const [x, y] = await evaluate<number[]>(
        `(({ left, top, width, height }) => [left + width / 2, top + height / 2])(` +
          `document.querySelector(${JSON.stringify(selector)}).getBoundingClientRect())`,
      );
      const data = { items: [], files, dragOperationsMask: 1 };
      for (const type of ["dragEnter", "dragOver", "drop"]) {
        await call("Input.dispatchDragEvent", { type, x, y, data });
      }
    },
    async look(width, height, scheme) {
      const mobile = width < 500;
      await call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
      await call("Emulation.setEmulatedMedia", {
        features: [{ name: "prefers-color-scheme", value: scheme }],
      });
      await evaluate("new Promise((wake) => setTimeout(wake, 300))");
    },
    async picture(path) {
      const { data } = await call<{ data: string }>("Page.captureScreenshot", {
        captureBeyondViewport: true,
      });
      await Deno.writeFile(path, Uint8Array.fromBase64(data));
    },
  };
}

/** What a message of the browser says is wrong, if anything. */
function told(method: string, params: Record<string, unknown>, origin: string): string | undefined {
  if (method === "Log.entryAdded") return `log: ${(params.entry as { text: string }).text}`;
  if (method === "Runtime.exceptionThrown") return `script: ${JSON.stringify(params.exceptionDetails)}`;
  if (method !== "Network.requestWillBeSent") return undefined;
  const { url } = params.request as { url: string };
  const own = [origin, `blob:${origin}`, "about:"].some((start) => url.startsWith(start));
  return own ? undefined : `request to another place: ${url}`;
}

/** A file's text, once it is there. */
export async function eventually(path: string): Promise<string> {
  for (let n = 0; n < 100; n++) {
    const text = await Deno.readTextFile(path).catch(() => "");
    if (text !== "") return text;
    await new Promise((wake) => setTimeout(wake, 50));
  }
  throw new Error(`Cannot go on: "${path}" was not saved`);
}
