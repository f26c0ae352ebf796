/**
 * Creates files and folders that only their owner can read, because cached content may be private.
 *
 * Modes are given where each thing is made, because the process's umask is not ours to set where the proxy is a library,
 * and setting it takes a permission that the program does without.
 *
 * @module
 */

/** The mode of files. */
export const PRIVATE_FILE = 0o600;
/** The mode of folders. */
export const PRIVATE_FOLDER = 0o700;

/** Windows has no modes. There the access list inherited from the parent folder applies. */
const HAS_MODES = Deno.build.os !== "windows";

/** Creates an empty private file unless it exists. Throws file system errors. */
export function createPrivateFile(path: string): void {
  try {
    Deno.openSync(path, { write: true, createNew: true, mode: PRIVATE_FILE }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}

/** The result of {@linkcode makePrivate}. */
export interface Widened {
  /** Paths that other users could access until now. */
  readonly tightened: readonly string[];
  /** Paths that other users can access and that this process cannot change. */
  readonly open: readonly string[];
}

/** Removes other users' permissions from those of `paths` that exist. */
export function makePrivate(paths: readonly string[]): Widened {
  const tightened: string[] = [];
  const open: string[] = [];
  for (const path of HAS_MODES ? paths : []) {
    try {
      const { mode, isDirectory } = Deno.statSync(path);
      if (mode === null || (mode & 0o077) === 0) continue;
      try {
        Deno.chmodSync(path, isDirectory ? PRIVATE_FOLDER : PRIVATE_FILE);
        tightened.push(path);
      } catch {
        open.push(path); // another user's file, or a file system without modes
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) open.push(path);
    }
  }
  return { tightened, open };
}
