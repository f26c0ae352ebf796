/**
 * Files and folders that only their owner may read: cached content of private repositories is among them.
 *
 * Modes are given where each thing is made, because the process's umask is not ours to set where the proxy is a library,
 * and setting it takes a permission that the program does without.
 *
 * @module
 */

/** The mode of a file. */
export const PRIVATE_FILE = 0o600;
/** The mode of a folder. */
export const PRIVATE_FOLDER = 0o700;

/** Windows has no modes: there the folder's access list, inherited from its parent, decides. */
const HAS_MODES = Deno.build.os !== "windows";

/** Makes an empty private file unless there is one. Throws what the disk throws. */
export function createPrivateFile(path: string): void {
  try {
    Deno.openSync(path, { write: true, createNew: true, mode: PRIVATE_FILE }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}

/** What {@linkcode makePrivate} found. */
export interface Widened {
  /** Paths that others could use, and cannot any more. */
  readonly tightened: readonly string[];
  /** Paths that others can use and that are not ours to change. */
  readonly open: readonly string[];
}

/** Takes everybody else's rights from those of `paths` that exist. */
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
        open.push(path); // another user's, or of a file system without modes
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) open.push(path);
    }
  }
  return { tightened, open };
}
