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
  /**
   * Builds a Dockerfile with no other files around it. The image's file system is unpacked to `to`, so that all of it
   * must have been pulled.
   */
  build(dockerfile: string, to: string): Promise<Finished>;
  /** Removes all that was pulled and built. */
  forget(): Promise<void>;
  logs(): string[];
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
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
      // Needs nothing of the kernel: the tests' own file system may be an overlay already.
      "--oci-worker-snapshotter=native",
    ],
    env: { ...options.env },
  });
  const buildctl = (...args: string[]) =>
    run(which("buildctl") ?? "buildctl", ["--addr", address, ...args]);

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
    async build(dockerfile, to) {
      const context = await Deno.makeTempDir({ dir });
      await Deno.writeTextFile(join(context, "Dockerfile"), dockerfile);
      return await buildctl(
        "build",
        "--frontend=dockerfile.v0",
        "--progress=plain",
        ...["--local", `context=${context}`],
        ...["--local", `dockerfile=${context}`],
        ...["--output", `type=local,dest=${to}`],
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
