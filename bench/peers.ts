/**
 * The servers that are compared, each as its users start it.
 *
 * @module
 */
import { join } from "@std/path";
import { baseEnv, ROOT, startCommand } from "../tests/support/proxy_process.ts";
import { which } from "../tests/support/requirements.ts";
import { freePort, removeDir } from "../tests/support/temp.ts";
import { startNginx } from "./nginx.ts";
import { type Program, start } from "./program.ts";
import { answers, type Upstream } from "./upstream.ts";

/**
 * Who is compared. `nginx static` serves the files themselves: the floor. `nginx read+write` does so without
 * `sendfile`: the floor for whoever cannot have that.
 */
export type PeerName =
  | "ours"
  | "nginx static"
  | "nginx read+write"
  | "nginx proxy_cache"
  | "docker-registry 2.8"
  | "distribution v3";

/** A running server. */
export interface Peer extends Program {
  readonly name: PeerName;
  readonly url: string;
  /** `127.0.0.1:PORT` */
  readonly host: string;
}

/** Options for {@linkcode Peers.start}. */
export interface PeerOptions {
  /** @default {the upstream that is as fast as it can} */
  readonly upstream?: string;
  /** More settings of ours. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts servers with empty caches. */
export class Peers {
  readonly #dir: string;
  readonly #upstream: Upstream;
  #count = 0;

  constructor(dir: string, upstream: Upstream) {
    this.#dir = dir;
    this.#upstream = upstream;
  }

  /** Whether it is installed here. */
  has(name: PeerName): boolean {
    switch (name) {
      case "docker-registry 2.8":
        return which("docker-registry") !== undefined;
      case "distribution v3":
        return which("registry") !== undefined;
      default:
        return true;
    }
  }

  /** Starts one; it answers when this resolves. */
  async start(name: PeerName, options: PeerOptions = {}): Promise<Peer> {
    const dir = join(this.#dir, `peer-${++this.#count}`);
    await Deno.mkdir(dir, { recursive: true });
    const port = freePort();
    const upstream = options.upstream ?? this.#upstream.url;
    const program = await this.#program(name, { dir, port, upstream, env: options.env });
    const url = `http://127.0.0.1:${port}`;
    if (options.env?.TLS_CERT) await accepts(port);
    else await answers(`${url}/v2/`);
    return {
      ...program,
      name,
      url,
      host: `127.0.0.1:${port}`,
      async stop(signal) {
        await program.stop(signal);
        await removeDir(dir);
      },
    };
  }

  async #program(
    name: PeerName,
    { dir, port, upstream, env }: {
      dir: string;
      port: number;
      upstream: string;
      env?: PeerOptions["env"];
    },
  ): Promise<Program> {
    switch (name) {
      case "ours":
        return start(Deno.execPath(), {
          args: await startCommand(),
          cwd: ROOT,
          env: {
            ...baseEnv(),
            HOST: "127.0.0.1",
            PORT: String(port),
            CACHE_DIR: join(dir, "cache"),
            ADMIN_ADDR: `127.0.0.1:${freePort()}`,
            UPSTREAM_DOCKER: upstream,
            ...env,
          },
        });
      case "nginx static":
      case "nginx read+write": {
        const how = name === "nginx static" ? "" : " sendfile off; output_buffers 2 1m;";
        return await startNginx(
          dir,
          `  server { listen 127.0.0.1:${port}; root ${this.#upstream.root}; default_type application/octet-stream;${how} }`,
        );
      }
      case "nginx proxy_cache":
        return await startNginx(
          dir,
          `  proxy_cache_path ${
            join(dir, "cache")
          } levels=1:2 keys_zone=blobs:10m max_size=20g use_temp_path=off;
  upstream registry { server ${new URL(upstream).host}; keepalive 32; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache blobs;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 1h;
    }
  }`,
        );
      case "docker-registry 2.8":
        return await startRegistry("docker-registry", { dir, port, upstream });
      case "distribution v3":
        return await startRegistry("registry", { dir, port, upstream });
    }
  }
}

/** Waits until something accepts connections at `port`, 20 s at most. */
async function accepts(port: number): Promise<void> {
  for (const until = performance.now() + 20_000;;) {
    try {
      return (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    } catch (error) {
      if (performance.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A pull-through cache of the registry that Docker publishes, in one of its versions. */
async function startRegistry(
  command: string,
  { dir, port, upstream }: { dir: string; port: number; upstream: string },
): Promise<Program> {
  const path = join(dir, "config.json");
  await Deno.writeTextFile(
    path,
    JSON.stringify({
      version: 0.1,
      log: { level: "error", accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: join(dir, "data") } },
      http: { addr: `127.0.0.1:${port}`, secret: "not-a-secret" },
      proxy: { remoteurl: upstream },
    }),
  );
  return start(which(command) ?? command, {
    args: ["serve", path],
    env: { ...baseEnv(), OTEL_TRACES_EXPORTER: "none" },
  });
}
