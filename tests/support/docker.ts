/**
 * A Docker engine of the test's own, and the client for it.
 *
 * @module
 */
import { join } from "@std/path";
import { type Hosts, inNamespace } from "./namespace.ts";
import { background, type Finished, must, run } from "./process.ts";
import { which } from "./requirements.ts";
import { removeDir } from "./temp.ts";

/** A running engine. */
export interface Docker {
  /** The client's folder, for a config.json. */
  readonly configDir: string;
  /** Runs `docker ARGS`; logins stay in a folder of their own. */
  docker(...args: string[]): Promise<Finished>;
  /** The same with text on stdin, e.g. for `login --password-stdin`. */
  dockerWith(stdin: string, ...args: string[]): Promise<Finished>;
  /** The same, which must succeed; its stdout. */
  must(...args: string[]): Promise<string>;
  /** Removes all images, so that the next pull needs every layer again. */
  forget(): Promise<void>;
  /** The engine's log lines so far. */
  logs(): string[];
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode startDockerd}. */
export interface DockerOptions {
  /** URLs of Docker Hub mirrors. */
  readonly mirrors?: readonly string[];
  /** `host:port` of registries to be spoken to in plain http, besides 127.0.0.0/8. */
  readonly insecure?: readonly string[];
  /** Names that the engine resolves. */
  readonly hosts?: Hosts;
  /** The engine's environment, e.g. `HTTPS_PROXY`. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts an engine; needs root, dockerd, containerd and docker. */
export async function startDockerd(options: DockerOptions = {}): Promise<Docker> {
  const dir = await Deno.makeTempDir({ prefix: "proxy-dockerd-" });
  const socket = `unix://${join(dir, "docker.sock")}`;
  const config = join(dir, "daemon.json");
  await Deno.writeTextFile(
    config,
    JSON.stringify({
      "data-root": join(dir, "data"),
      "exec-root": join(dir, "exec"),
      "pidfile": join(dir, "pid"),
      "hosts": [socket],
      "bridge": "none",
      "iptables": false,
      "ip6tables": false,
      "registry-mirrors": options.mirrors ?? [],
      "insecure-registries": options.insecure ?? [],
      "max-download-attempts": 5,
      "debug": true,
    }),
  );
  const [command, ...before] = await inNamespace(dir, options.hosts);
  const engine = background(command!, {
    args: [...before, which("dockerd") ?? "dockerd", "--config-file", config],
    env: { ...options.env },
  });
  const client = which("docker") ?? "docker";
  const configDir = join(dir, "client");
  const env = { DOCKER_HOST: socket, DOCKER_CONFIG: configDir };

  async function stop() {
    await engine.stop();
    await removeDir(dir);
  }

  try {
    await engine.line(/API listen on/, 30_000);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    configDir,
    docker: (...args) => run(client, args, { env }),
    dockerWith: (stdin, ...args) => run(client, args, { env, stdin }),
    must: (...args) => must(client, args, { env }),
    async forget() {
      await must(client, ["image", "prune", "--all", "--force"], { env });
    },
    logs: () => engine.lines,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
