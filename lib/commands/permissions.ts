/**
 * What the process may do, once it is known what it has to do.
 *
 * Which files the settings name is not known before they are read. So the command line starts with the whole file
 * system (`--allow-read=/ --allow-write=/`, as a list: a permission without a list cannot be given back in part), and
 * gives back everything but what the configuration needs before it listens. A defect that lets somebody choose a path
 * then reaches nothing.
 *
 * @module
 */
import { fromFileUrl } from "@std/path";
import type { Config } from "../config/config.ts";

const ROOT = "/";
const PAGE = fromFileUrl(new URL("../admin/page/", import.meta.url));

/** The files and folders that a process with this configuration uses after its start. */
export interface NeededPaths {
  readonly read: readonly string[];
  readonly write: readonly string[];
}

/** What `config` needs: its cache, what it reads again while it runs, and the operator's page. */
export function neededPaths({ cache, listen: { tls }, authoritiesFile }: Config): NeededPaths {
  const own = cache ? [cache.dir] : [];
  const files = [tls?.cert, tls?.key, authoritiesFile].filter((path) => path !== undefined);
  return { read: [...own, ...files, PAGE], write: own };
}

/**
 * Gives back what `config` does not need. Permissions that were given otherwise than `deno task start` does, whole or
 * narrower, stay as they are. Throws an `Error` where this version of Deno gives back too much.
 */
export function narrowPermissions(config: Config): void {
  if (!Deno.permissions?.revokeSync) return; // Deno Deploy: it has no file system to speak of
  const { read, write } = neededPaths(config);
  narrow("read", read);
  narrow("write", write);
  // By its own address an instance tells others where it is.
  const isShared = config.cache?.index.engine === "redis";
  if (!isShared) Deno.permissions.revokeSync({ name: "sys", kind: "networkInterfaces" });
}

/** The files that the process may use by now, for the log: paths, or `all`. */
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
  // Granted already, by the root: this only puts the path into the list beside it, and asks nobody.
  for (const path of paths) Deno.permissions.requestSync({ name, path });
  Deno.permissions.revokeSync({ name, path: ROOT });
  const lost = paths.find((path) => !isGranted(name, path));
  if (lost !== undefined) throw new Error(`Cannot narrow the permission to ${name}: ${lost}`);
}
