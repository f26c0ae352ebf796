/**
 * A BuildKit daemon of the test's own, and the client for it.
 *
 * @module
 */
import { join } from "@std/path";
import { type Hosts, inNamespace } from "./namespace.ts";
import { background, type Finished, run } from "./process.ts";
import { which } from "./requirements.ts";
import { removeDir } from "./temp.ts";

/** A running daemon. */
export interface BuildKit {
  /** Builds a folder with a Dockerfile. All that the image is made of must have been pulled. */
  build(context: string, options: BuildOptions): Promise<Finished>;
  /** Removes all that was pulled and built. */
  forget(): Promise<void>;
  logs(): string[];
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a build makes. */
export interface BuildOptions {
  /** The folder it goes to. */
  readonly to: string;
  /** The image's files, or a layout. @default {"local"} */
  readonly as?: "local" | "oci";
  /** Such as `linux/arm64`. @default {the daemon's own} */
  readonly platforms?: readonly string[];
  /** Logins, `name:password` by host. @default {none} */
  readonly logins?: Readonly<Record<string, string>>;
  /** Whether what is run has no network. @default {false} */
  readonly isOffline?: boolean;
}

/** Options for {@linkcode startBuildKit}. */
export interface BuildKitOptions {
  /** The text of its buildkitd.toml. */
  readonly config: string;
  /** Names that the daemon resolves. */
  readonly hosts?: Hosts;
  /** The daemon's environment, e.g. `SSL_CERT_FILE`. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a daemon; needs root, runc, buildkitd and buildctl. */
export async function startBuildKit(options: BuildKitOptions): Promise<BuildKit> {
  const dir = await Deno.makeTempDir({ prefix: "proxy-buildkit-" });
  const address = `unix://${join(dir, "buildkitd.sock")}`;
  const config = join(dir, "buildkitd.toml");
  await Deno.writeTextFile(config, options.config);
  const [command, ...before] = await inNamespace(dir, options.hosts);
  const daemon = background(command!, {
    args: [
      ...before,
      which("buildkitd") ?? "buildkitd",
      ...["--config", config],
      ...["--root", join(dir, "root")],
      ...["--addr", address],
      "--containerd-worker=false",
      "--oci-worker-net=host",
    ],
    env: { ...options.env },
  });
  const env = { DOCKER_CONFIG: join(dir, "client") };
  await Deno.mkdir(env.DOCKER_CONFIG);
  const buildctl = (...args: string[]) =>
    run(which("buildctl") ?? "buildctl", ["--addr", address, ...args], { env });

  async function stop() {
    await daemon.stop();
    await removeDir(dir);
  }

  try {
    await daemon.line(/running server on/, 30_000);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    async build(context, { to, as = "local", platforms, logins = {}, isOffline }) {
      const auths = Object.entries(logins).map(([host, login]) => [host, { auth: btoa(login) }]);
      const settings = { auths: Object.fromEntries(auths) };
      await Deno.writeTextFile(join(env.DOCKER_CONFIG, "config.json"), JSON.stringify(settings));
      return await buildctl(
        "build",
        "--frontend=dockerfile.v0",
        "--progress=plain",
        ...["--local", `context=${context}`],
        ...["--local", `dockerfile=${context}`],
        ...platforms ? ["--opt", `platform=${platforms.join(",")}`] : [],
        ...isOffline ? ["--opt", "force-network-mode=none"] : [],
        ...[
          "--output",
          `type=${as},dest=${to}${as === "oci" ? ",tar=false,compression=uncompressed" : ""}`,
        ],
      );
    },
    async forget() {
      const { code, stderr } = await buildctl("prune", "--all");
      if (code !== 0) throw new Error(stderr);
    },
    logs: () => daemon.lines,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
