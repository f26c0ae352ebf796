/**
 * A file system in memory, small and with its own moods. Needs root.
 *
 * @module
 */
import { must, run } from "./process.ts";
import { removeDir } from "./temp.ts";

/** A mounted tmpfs; disposing of it unmounts it. */
export interface Tmpfs extends AsyncDisposable {
  readonly path: string;
  /** Mounts it anew, e.g. `ro`. Nothing may be open in it for writing then. */
  remount(option: "ro" | "rw"): Promise<void>;
}

/** Mounts a tmpfs that holds `size` (`64m`). */
export async function mountTmpfs(size: string): Promise<Tmpfs> {
  const path = await Deno.makeTempDir({ prefix: "proxy-tmpfs-" });
  await must("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path]);
  return {
    path,
    remount: async (option) => void await must("mount", ["-o", `remount,${option}`, path]),
    async [Symbol.asyncDispose]() {
      // Lazily: what a failed test left open must not keep it.
      await run("umount", ["-l", path]);
      await removeDir(path);
    },
  };
}
