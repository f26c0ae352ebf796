/**
 * A real Redis and a real S3 server (versitygw on a folder), which can be killed and started again.
 *
 * @module
 */
import { type Background, background } from "./process.ts";
import { which } from "./requirements.ts";
import { freePort, removeDir } from "./temp.ts";

/** A server that keeps its port and its data over `kill` and `start`. */
export interface Engine {
  /** For `CACHE_STORE` or `CACHE_INDEX`. */
  readonly url: string;
  readonly port: number;
  /** What the proxy needs in its environment besides. */
  readonly env: Readonly<Record<string, string>>;
  readonly running: boolean;
  /** Of the process that runs now. */
  readonly pid: number;
  /** SIGKILL, as in an outage. */
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Removes its data, while it does not run. */
  wipe(): Promise<void>;
  /** SIGSTOP and SIGCONT: it neither answers nor refuses. */
  signal(signal: Deno.Signal): void;
  [Symbol.asyncDispose](): Promise<void>;
}

interface EngineSpec {
  readonly dir: string;
  readonly port: number;
  readonly url: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly spawn: () => Background;
  readonly isReady: () => Promise<boolean>;
}

async function engine(spec: EngineSpec): Promise<Engine> {
  let process: Background | undefined;
  const start = async () => {
    const started = process = spec.spawn();
    const until = performance.now() + 10_000;
    while (!await spec.isReady()) {
      if (!started.running() || performance.now() > until) {
        throw new Error(`Not ready:\n${started.lines.slice(-20).join("\n")}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const kill = async () => {
    await process?.stop("SIGKILL");
  };
  await start();
  return {
    url: spec.url,
    port: spec.port,
    env: spec.env ?? {},
    get running() {
      return process?.running() ?? false;
    },
    get pid() {
      return process!.pid;
    },
    kill,
    start,
    async wipe() {
      await removeDir(spec.dir);
      await Deno.mkdir(spec.dir);
    },
    signal: (signal) => Deno.kill(process!.pid, signal),
    async [Symbol.asyncDispose]() {
      await kill();
      await removeDir(spec.dir);
    },
  };
}

/** Whether something on the port answers `say` with `expected`. */
async function says(port: number, say: string, expected: RegExp): Promise<boolean> {
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(new TextEncoder().encode(say));
    const buffer = new Uint8Array(64);
    const n = await connection.read(buffer) ?? 0;
    return expected.test(new TextDecoder().decode(buffer.subarray(0, n)));
  } catch {
    return false; // not yet
  }
}

async function accepts(port: number): Promise<boolean> {
  try {
    (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    return true;
  } catch {
    return false; // not yet
  }
}

/** Starts a Redis that writes down every command, so that it comes back with what it had. */
export async function startRedis(
  options: { args?: readonly string[]; persistent?: boolean } = {},
): Promise<Engine> {
  const { args = [], persistent = true } = options;
  const dir = await Deno.makeTempDir({ prefix: "redis-" });
  const port = await freePort();
  return await engine({
    dir,
    port,
    url: `redis://127.0.0.1:${port}`,
    spawn: () =>
      background(which("redis-server")!, {
        cwd: dir,
        args: [
          ...["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", dir],
          ...["--appendonly", persistent ? "yes" : "no", "--appendfsync", "always"],
          ...args,
        ],
      }),
    isReady: () => says(port, "PING\r\n", /PONG|NOAUTH/),
  });
}

/** Sends one inline command to the port; the first line of the answer. */
export async function redisCommand(port: number, command: string): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(`${command}\r\n`));
  const buffer = new Uint8Array(4096);
  const n = await connection.read(buffer) ?? 0;
  return new TextDecoder().decode(buffer.subarray(0, n)).split("\r\n")[0]!;
}

/** Starts a sentinel that watches `master` under the name `main`, and takes it for dead after half a second. */
export async function startSentinel(master: Engine): Promise<Engine> {
  const dir = await Deno.makeTempDir({ prefix: "sentinel-" });
  const port = await freePort();
  const config = `${dir}/sentinel.conf`;
  await Deno.writeTextFile(
    config,
    [
      ...[`port ${port}`, "bind 127.0.0.1", `dir ${dir}`],
      `sentinel monitor main 127.0.0.1 ${master.port} 1`,
      "sentinel down-after-milliseconds main 500",
      "sentinel failover-timeout main 3000",
    ].join("\n"),
  );
  return await engine({
    dir,
    port,
    url: `redis://127.0.0.1:${port}?sentinel=main`,
    spawn: () => background(which("redis-server")!, { cwd: dir, args: [config, "--sentinel"] }),
    isReady: () => says(port, "PING\r\n", /PONG/),
  });
}

/** Starts an S3 server with one bucket, `cache`; with `tls` for `localhost`. */
export async function startS3(
  options: {
    readonly tls?: { readonly certPath: string; readonly keyPath: string };
    readonly secret?: string;
  } = {},
): Promise<Engine> {
  const { tls, secret = "secret" } = options;
  const dir = await Deno.makeTempDir({ prefix: "s3-" });
  await Deno.mkdir(`${dir}/data/cache`, { recursive: true });
  const port = await freePort();
  const env = { AWS_ACCESS_KEY_ID: "access", AWS_SECRET_ACCESS_KEY: secret };
  return await engine({
    dir,
    port,
    url: tls
      ? `s3://cache/registry?endpoint=https://localhost:${port}`
      : `s3://cache/registry?endpoint=http://127.0.0.1:${port}`,
    env,
    spawn: () =>
      background(which("versitygw")!, {
        cwd: dir,
        args: [
          ...["--access", env.AWS_ACCESS_KEY_ID, "--secret", env.AWS_SECRET_ACCESS_KEY],
          ...tls ? ["--cert", tls.certPath, "--key", tls.keyPath] : [],
          ...["--port", `127.0.0.1:${port}`, "--quiet", "posix", `${dir}/data`],
        ],
      }),
    isReady: () =>
      tls ? accepts(port) : says(port, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", /^HTTP/),
  });
}
