/**
 * A containerd of the test's own, ctr for it, and its hosts.toml files.
 *
 * @module
 */
import { join } from "@std/path";
import { type Hosts, inNamespace } from "./namespace.ts";
import { background, type Finished, must, run } from "./process.ts";
import { which } from "./requirements.ts";
import { removeDir } from "./temp.ts";

/** One mirror in a hosts.toml. */
export interface HostsMirror {
  readonly url: string;
  /** The path is sent as it is, without `/v2` added. @default {false} */
  readonly overridePath?: boolean;
}

/** A running containerd. */
export interface Containerd {
  /** Runs `ctr ARGS`. */
  ctr(...args: string[]): Promise<Finished>;
  /** Runs `ctr images pull ARGS REF` with the hosts folder. */
  pull(ref: string, ...args: string[]): Promise<Finished>;
  /** Where the hosts.toml files are, in a folder for each registry. */
  readonly hostsDir: string;
  /** The digest that an image's name points at. */
  digest(ref: string): Promise<string>;
  /** Writes the hosts.toml of one registry; `server` (its own URL) is where it falls through to. */
  setHosts(registry: string, mirrors: readonly HostsMirror[], server?: string): Promise<void>;
  /** Removes all images and their content. */
  forget(): Promise<void>;
  logs(): string[];
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode startContainerd}. */
export interface ContainerdOptions {
  /** Names that pulls resolve. */
  readonly hosts?: Hosts;
  /** The environment of `ctr`, which pulls by itself, e.g. `SSL_CERT_FILE`. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a containerd; needs root, containerd and ctr. */
export async function startContainerd(options: ContainerdOptions = {}): Promise<Containerd> {
  const dir = await Deno.makeTempDir({ prefix: "proxy-containerd-" });
  const address = join(dir, "containerd.sock");
  const config = join(dir, "config.toml");
  await Deno.writeTextFile(
    config,
    `version = 2
root = ${JSON.stringify(join(dir, "root"))}
state = ${JSON.stringify(join(dir, "state"))}
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = ${JSON.stringify(address)}
`,
  );
  const [wrap, ...before] = await inNamespace(dir, options.hosts);
  const daemon = background(wrap!, {
    args: [...before, which("containerd") ?? "containerd", "--config", config],
  });
  const hostsDir = join(dir, "hosts.d");
  // ctr resolves and fetches by itself, so it must see the same names as the daemon.
  const words = (args: readonly string[]) => [
    ...before,
    which("ctr") ?? "ctr",
    ...["--address", address],
    ...args,
  ];
  const ctr = (...args: string[]) => run(wrap!, words(args), { env: { ...options.env } });

  async function stop() {
    await daemon.stop();
    await removeDir(dir);
  }

  try {
    await daemon.line(/containerd successfully booted/, 30_000);
    await Deno.mkdir(hostsDir);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    ctr,
    hostsDir,
    pull: (ref, ...args) => ctr("images", "pull", "--hosts-dir", hostsDir, ...args, ref),
    async digest(ref) {
      const list = await must(wrap!, words(["images", "ls", `name==${ref}`]));
      return /sha256:[0-9a-f]{64}/.exec(list)?.[0] ?? "";
    },
    async setHosts(registry, mirrors, server) {
      const folder = join(hostsDir, registry);
      await Deno.mkdir(folder, { recursive: true });
      const lines = server === undefined ? [] : [`server = ${JSON.stringify(server)}`];
      for (const { url, overridePath } of mirrors) {
        lines.push(`[host.${JSON.stringify(url)}]`, `capabilities = ["pull", "resolve"]`);
        if (overridePath) lines.push("override_path = true");
      }
      await Deno.writeTextFile(join(folder, "hosts.toml"), lines.join("\n") + "\n");
    },
    async forget() {
      const names = await must(wrap!, words(["images", "ls", "--quiet"]));
      for (const name of names.split("\n").filter(Boolean)) {
        await must(wrap!, words(["images", "rm", "--sync", name]));
      }
      await must(wrap!, words(["content", "prune", "references"]));
    },
    logs: () => daemon.lines,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
