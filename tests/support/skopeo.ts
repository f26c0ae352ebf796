/**
 * skopeo and podman with a registries.conf, a storage and logins of the test's own.
 *
 * @module
 */
import { join } from "@std/path";
import { type Hosts, inNamespace } from "./namespace.ts";
import { type Finished, run } from "./process.ts";
import { which } from "./requirements.ts";
import { removeDir } from "./temp.ts";

/** The two programs in a folder of their own. */
export interface Containers {
  /** The folder, for `dir:` and `oci:` destinations; it goes with the rest. */
  readonly dir: string;
  skopeo(...args: string[]): Promise<Finished>;
  podman(...args: string[]): Promise<Finished>;
  remove(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode makeContainers}. */
export interface ContainersOptions {
  /** Mirrors by registry, each `host:port` or `host:port/prefix`: `{"docker.io": ["127.0.0.1:8080"]}`. */
  readonly mirrors?: Readonly<Record<string, readonly string[]>>;
  /** `host:port` of registries to be spoken to in plain http; mirrors are. */
  readonly insecure?: readonly string[];
  /** Names that both resolve; needs root. */
  readonly hosts?: Hosts;
  /** Their environment, e.g. `SSL_CERT_FILE`. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Makes the folder; starts nothing. */
export async function makeContainers(options: ContainersOptions = {}): Promise<Containers> {
  const dir = await Deno.makeTempDir({ prefix: "proxy-containers-" });
  const file = (name: string) => join(dir, name);
  // The one place that every version of both looks at, also for root.
  await Deno.mkdir(file(".config/containers"), { recursive: true });
  await Deno.writeTextFile(file(".config/containers/registries.conf"), registriesConf(options));
  await Deno.writeTextFile(file("auth.json"), "{}"); // podman wants it to be there
  await Deno.writeTextFile(
    file("policy.json"),
    JSON.stringify({ default: [{ type: "insecureAcceptAnything" }] }),
  );
  await Deno.writeTextFile(
    file("storage.conf"),
    `[storage]\ndriver = "vfs"\ngraphroot = ${JSON.stringify(file("root"))}\nrunroot = ${
      JSON.stringify(file("run"))
    }\n`,
  );
  const env = {
    HOME: dir,
    XDG_CONFIG_HOME: file(".config"),
    CONTAINERS_STORAGE_CONF: file("storage.conf"),
    REGISTRY_AUTH_FILE: file("auth.json"),
    XDG_RUNTIME_DIR: dir,
    ...options.env,
  };
  const before = options.hosts ? await inNamespace(dir, options.hosts) : [];
  const start = (program: "skopeo" | "podman", args: readonly string[]) => {
    const words = [...before, which(program) ?? program, ...args];
    return run(words[0]!, words.slice(1), { env });
  };
  const remove = () => removeDir(dir);
  return {
    dir,
    skopeo: (...args) => start("skopeo", ["--policy", file("policy.json"), ...args]),
    podman(command = "info", ...args) {
      const policy = command === "pull" ? ["--signature-policy", file("policy.json")] : [];
      const flags = ["--cgroup-manager", "cgroupfs", "--events-backend", "none"];
      return start("podman", [...flags, "--tmpdir", file("tmp"), command, ...policy, ...args]);
    },
    remove,
    [Symbol.asyncDispose]: remove,
  };
}

function registriesConf({ mirrors = {}, insecure = [] }: ContainersOptions): string {
  const quote = JSON.stringify;
  const lines = [`unqualified-search-registries = ["docker.io"]`];
  for (const [registry, locations] of Object.entries(mirrors)) {
    lines.push("[[registry]]", `prefix = ${quote(registry)}`, `location = ${quote(registry)}`);
    for (const location of locations) {
      lines.push("[[registry.mirror]]", `location = ${quote(location)}`, "insecure = true");
    }
  }
  for (const location of insecure) {
    lines.push("[[registry]]", `location = ${quote(location)}`, "insecure = true");
  }
  return lines.join("\n") + "\n";
}
