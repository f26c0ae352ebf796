/**
 * Reduces the permissions of the process to those that its configuration needs.
 *
 * The files that the settings name are unknown until the settings have been read. So the command line
 * starts with access to the whole file system (`--allow-read=/ --allow-write=/`; a permission granted
 * without a list cannot be revoked in part), and revokes everything that the configuration does not need
 * before it listens. A bug that lets a client choose a path then cannot reach other files.
 *
 * @module
 */
import { fromFileUrl } from "@std/path";
import type { Config } from "../config/config.ts";

const ROOT = "/";
const PAGE = fromFileUrl(new URL("../admin/page/", import.meta.url));

/** Files and folders that a process uses after its start. */
export interface NeededPaths {
  readonly read: readonly string[];
  readonly write: readonly string[];
}

/**
 * Returns the files and folders that `config` needs: the cache, files that are read again at run time, and
 * the operator's page.
 */
export function neededPaths({ cache, listen: { tls }, authoritiesFile }: Config): NeededPaths {
  const own = cache ? [cache.dir] : [];
  const files = [tls?.cert, tls?.key, authoritiesFile].filter((path) => path !== undefined);
  return { read: [...own, ...files, PAGE], write: own };
}

/**
 * Revokes the permissions that `config` does not need. Permissions that do not include the whole file
 * system as a list stay unchanged. Throws an `Error` if this version of Deno revokes too much.
 */
export function narrowPermissions(config: Config): void {
  if (!Deno.permissions?.revokeSync) return; // Deno Deploy has no persistent file system
  const { read, write } = neededPaths(config);
  narrow("read", read);
  narrow("write", write);
  // A shared instance needs its network interfaces to advertise its address.
  const isShared = config.cache?.index.engine === "redis";
  if (!isShared) Deno.permissions.revokeSync({ name: "sys", kind: "networkInterfaces" });
}

/** Returns the files that the process may use, for the log: paths, or `all`. */
export function describePermissions(config: Config): { read: string; write: string } {
  const { read, write } = neededPaths(config);
  const tell = (name: "read" | "write", paths: readonly string[]) =>
    isGranted(name, ROOT) ? "all" : paths.join(" ") || "none";
  return { read: tell("read", read), write: tell("write", write) };
}

function isGranted(name: "read" | "write", path?: string): boolean {
  return Deno.permissions?.querySync?.({ name, path }).state === "granted";
}

function narrow(name: "read" | "write", paths: readonly string[]): void {
  if (isGranted(name) || !isGranted(name, ROOT)) return;
  // The root already includes the path, so this adds it to the list without a prompt.
  for (const path of paths) Deno.permissions.requestSync({ name, path });
  Deno.permissions.revokeSync({ name, path: ROOT });
  const lost = paths.find((path) => !isGranted(name, path));
  if (lost !== undefined) throw new Error(`Cannot narrow the permission to ${name}: ${lost}`);
}
