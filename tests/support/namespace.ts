/**
 * Daemons in a mount namespace of their own: what they mount goes when they go, and they may see other host names.
 *
 * @module
 */
import { join } from "@std/path";

/** Addresses by name, e.g. `{"docker.proxy.test": "127.0.0.1"}`. */
export type Hosts = Readonly<Record<string, string>>;

/** The words to put before a command so that it runs so; needs root. `dir` keeps the file of host names. */
export async function inNamespace(dir: string, hosts: Hosts = {}): Promise<string[]> {
  const lines = Object.entries({ localhost: "127.0.0.1", ...hosts })
    .map(([name, address]) => `${address} ${name}\n`);
  const file = join(dir, "hosts");
  await Deno.writeTextFile(file, lines.join(""));
  const script = `mount --bind "$0" /etc/hosts && exec "$@"`;
  return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, file];
}
