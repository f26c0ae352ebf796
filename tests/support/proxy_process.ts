/**
 * The proxy as its user starts it: a process of its own, with the permissions of `deno task start`.
 *
 * @module
 */
import { fromFileUrl, join } from "@std/path";
import { answering, background, run } from "./process.ts";
import { freePort, removeDir } from "./temp.ts";

/** The folder of the project. */
export const ROOT: string = fromFileUrl(new URL("../../", import.meta.url));

/** A proxy that answers. */
export interface ProxyProcess {
  /** `http://127.0.0.1:PORT`, or https with `TLS_CERT`. */
  readonly url: string;
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly port: number;
  readonly pid: number;
  readonly cacheDir: string;
  /** Lines of stdout and stderr so far. */
  logs(): string[];
  /** Resolves with the first log line that matches, also one from before; throws after `ms` (10,000). */
  log(pattern: RegExp, ms?: number): Promise<string>;
  /** Peak resident size of the process, in bytes. */
  rss(): number;
  running(): boolean;
  /** SIGTERM (or another signal); the exit code. Removes a cache folder that was not given. */
  stop(signal?: Deno.Signal): Promise<number>;
  /** SIGKILL. Keeps the cache folder. */
  kill(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode startProxy}. */
export interface ProxyOptions {
  /** All of the proxy's environment but PATH, HOME, DENO_DIR, and where not given HOST, PORT, CACHE_DIR and ADMIN_ADDR=off. */
  readonly env?: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
  /** What deno is started with. @default {what the `start` task says} */
  readonly command?: readonly string[];
  /** @default {the project} */
  readonly cwd?: string;
  /** Put before the command, e.g. `["unshare", "-m", ...]`. */
  readonly wrap?: readonly string[];
  /** The path that must answer 200 before it counts as started. @default {"/health"} */
  readonly ready?: string;
}

/** Starts a proxy on a free port of 127.0.0.1 and waits until it answers. */
export async function startProxy(options: ProxyOptions = {}): Promise<ProxyProcess> {
  const { env = {}, args = [], wrap = [], ready = "/health", cwd } = options;
  const port = env.PORT === undefined ? freePort() : Number(env.PORT);
  const ownDir = env.CACHE_DIR === undefined;
  const cacheDir = env.CACHE_DIR ?? await Deno.makeTempDir({ prefix: "proxy-cache-" });
  const command = [...wrap, Deno.execPath(), ...options.command ?? await startCommand(), ...args];
  const process = background(command[0]!, {
    args: command.slice(1),
    cwd: cwd ?? ROOT,
    clearEnv: true,
    env: {
      ...baseEnv(),
      HOST: "127.0.0.1",
      PORT: String(port),
      CACHE_DIR: cacheDir,
      ADMIN_ADDR: "off",
      ...env,
    },
  });
  const scheme = env.TLS_CERT ? "https" : "http";
  const url = `${scheme}://127.0.0.1:${port}`;

  async function stop(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    const { code } = await process.stop(signal, 60_000);
    if (ownDir) await removeDir(cacheDir);
    return code;
  }

  try {
    if (scheme === "http") {
      await answering(url + ready, process, { accept: (status) => status === 200 });
    } else await listening(port, process);
  } catch (error) {
    await process.stop("SIGKILL");
    if (ownDir) await removeDir(cacheDir);
    throw error;
  }
  return {
    url,
    host: `127.0.0.1:${port}`,
    port,
    pid: process.pid,
    cacheDir,
    logs: () => process.lines,
    log: process.line,
    rss: process.peakRss,
    running: process.running,
    stop,
    async kill() {
      await process.stop("SIGKILL");
    },
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}

/** Runs the proxy's command line to its end, e.g. `runProxy(["config"], { PORT: "x" })`. */
export async function runProxy(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  return await run(Deno.execPath(), [...await startCommand(), ...args], {
    cwd: ROOT,
    clearEnv: true,
    env: { ...baseEnv(), ...env },
  });
}

const FALLBACK = "deno run --allow-net --allow-read --allow-write --allow-env --allow-sys main.ts";

/** The arguments of `deno` in the `start` task, with the script's path made absolute. */
export async function startCommand(): Promise<string[]> {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const task: string | { command: string } = tasks?.start ?? FALLBACK;
  const words = (typeof task === "string" ? task : task.command).match(/"[^"]*"|'[^']*'|\S+/g)!
    .map((word) => word.replace(/^(["'])(.*)\1$/, "$2"));
  while (/^\w+=/.test(words[0] ?? "")) words.shift(); // see `baseEnv`
  const script = words.findIndex((word) => word.endsWith(".ts"));
  if (words[0] !== "deno" || script < 0) {
    throw new Error(`Cannot read the start task: ${words.join(" ")}`);
  }
  return words.slice(1, script + 1).map((word, i) => {
    if (i + 1 === script) return join(ROOT, word);
    return word === "--env-file" || word.startsWith("--env-file=") ? "" : word;
  }).filter(Boolean);
}

/** What every process needs: where programs and Deno's caches are. */
export function baseEnv(): Record<string, string> {
  const kept = ["PATH", "HOME", "DENO_DIR", "NPM_CONFIG_REGISTRY", "TMPDIR"];
  // What the `start` task sets: the allocator gives back what is no longer needed.
  const env: Record<string, string> = { NO_COLOR: "1", DENO_USR2_MEMORY_TRIM: "1" };
  for (const name of kept) {
    const value = Deno.env.get(name);
    if (value !== undefined) env[name] = value;
  }
  return env;
}

async function listening(port: number, process: { running(): boolean; lines: string[] }) {
  for (let tries = 0;; tries++) {
    try {
      return (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    } catch (error) {
      if (!process.running() || tries > 500) {
        throw new Error(`Not listening: ${error}:\n${process.lines.slice(-30).join("\n")}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
