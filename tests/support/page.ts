/**
 * The operator's page in a real Chromium, before a proxy in this process.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  type Browser,
  type BrowserContextOptions,
  chromium,
  type Locator,
  type Page,
} from "playwright-core";
import { startAdmin } from "../../lib/admin/server.ts";
import { type FakeRegistry, startFakeRegistry } from "./fake_registry.ts";
import { whole } from "./http.ts";
import { blobsOf, type Manifest, manifestsOf } from "./image.ts";
import { startTestProxy, type TestProxy } from "./proxy.ts";
import { toolTest, which } from "./requirements.ts";

/** A page, and all that is behind it. */
export interface OperatorPage {
  readonly page: Page;
  readonly browser: Browser;
  readonly proxy: TestProxy;
  /** Docker Hub to the proxy. */
  readonly upstream: FakeRegistry;
  /** `http://127.0.0.1:PORT/` of the operator's listener. */
  readonly url: string;
  /** Errors of scripts and of the console, violations of the CSP among them. */
  readonly problems: string[];
  /** Requests to anything but the operator's listener. */
  readonly foreign: string[];
  /** Ends the operator's listener, as when the proxy dies; connections are cut. */
  stopAdmin(): Promise<void>;
  /** Starts it again on its port. */
  startAdmin(): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode openPage}. */
export interface OpenPageOptions {
  /** Settings of the proxy. */
  readonly env?: Readonly<Record<string, string>>;
  readonly token?: string;
  readonly context?: BrowserContextOptions;
  /** Runs before the page is loaded. */
  readonly before?: (
    page: Page,
    parts: { readonly proxy: TestProxy; readonly upstream: FakeRegistry },
  ) => void | Promise<void>;
  /** The fragment to open. @default {""} */
  readonly route?: string;
}

/** What Chromium says by itself about answers that a test wants to be errors. */
const EXPECTED = /^Failed to load resource: /;

/** Starts everything, and loads the page: `await using all = await openPage()`. */
export async function openPage(options: OpenPageOptions = {}): Promise<OperatorPage> {
  await using stack = new AsyncDisposableStack();
  const upstream = stack.use(await startFakeRegistry());
  const env = { RETRIES: "0", ...options.env };
  const proxy = stack.use(await startTestProxy({ upstreams: { docker: upstream }, env }));
  const settings = { host: "127.0.0.1", isWanted: true, token: options.token };
  let admin = startAdmin(proxy.proxy, { ...settings, port: 0 });
  const { port } = admin.addr;
  stack.defer(() => admin.close());
  const url = `http://127.0.0.1:${port}/`;
  const browser = await chromium.launch({
    executablePath: which("chromium"),
    // As root Chromium has no sandbox; the page is ours.
    args: ["--no-sandbox"],
  });
  stack.defer(() => browser.close());
  const context = await browser.newContext({
    locale: "en-GB",
    viewport: { width: 1280, height: 900 },
    reducedMotion: "reduce",
    ...options.context,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const problems: string[] = [];
  const foreign: string[] = [];
  page.on("console", (message) => {
    const text = message.text();
    if (["error", "warning"].includes(message.type()) && !EXPECTED.test(text)) problems.push(text);
  });
  page.on("pageerror", (error) => void problems.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin + "/" !== url) foreign.push(request.url());
  });
  await options.before?.(page, { proxy, upstream });
  await page.goto(url + (options.route ?? ""));
  const disposables = stack.move();
  return {
    page,
    browser,
    proxy,
    upstream,
    url,
    problems,
    foreign,
    stopAdmin: () => admin.close(),
    startAdmin: () => void (admin = startAdmin(proxy.proxy, { ...settings, port })),
    [Symbol.asyncDispose]: () => disposables.disposeAsync(),
  };
}

/** A test of the page. It fails too when the page asked another host, or the console had a problem. */
export function pageTest(
  name: string,
  fn: (all: OperatorPage) => Promise<void>,
  options: OpenPageOptions = {},
): void {
  toolTest(name, {
    needs: ["chromium"],
    async fn() {
      await using all = await openPage(options);
      await fn(all);
      assertEquals(all.problems, []);
      assertEquals(all.foreign, []);
    },
  });
}

/** Waits until the text of `locator` matches, and returns it. */
export async function textOf(locator: Locator, pattern: RegExp): Promise<string> {
  const found = locator.filter({ hasText: pattern }).first();
  await found.waitFor();
  return await found.innerText();
}

/** Pulls all of an image through the proxy, `times` over. */
export async function pull(
  proxy: TestProxy,
  { repository, tag, image, times = 1 }: {
    repository: string;
    tag: string;
    image: Manifest;
    times?: number;
  },
): Promise<void> {
  const base = `${proxy.url}/v2/${repository}`;
  for (let i = 0; i < times; i++) {
    await whole(`${base}/manifests/${tag}`);
    for (const { digest } of manifestsOf(image)) await whole(`${base}/manifests/${digest}`);
    for (const { digest } of blobsOf(image)) {
      await whole(`${base}/blobs/${digest}`);
      await proxy.proxy.cache?.content.settled(digest);
    }
  }
}
