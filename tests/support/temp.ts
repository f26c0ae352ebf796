/**
 * Temporary folders and free ports.
 *
 * @module
 */

/** A folder that is removed when it is disposed of. */
export interface TempDir {
  readonly path: string;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Makes a temporary folder: `await using dir = await tempDir()`. */
export async function tempDir(prefix = "proxy-test-"): Promise<TempDir> {
  const path = await Deno.makeTempDir({ prefix });
  return { path, [Symbol.asyncDispose]: () => removeDir(path) };
}

/** Removes a folder and what is in it; one that is gone already is no error. */
export async function removeDir(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** A port of `hostname` that nothing listens on now. */
export function freePort(hostname = "127.0.0.1"): number {
  const listener = Deno.listen({ hostname, port: 0 });
  try {
    return (listener.addr as Deno.NetAddr).port;
  } finally {
    listener.close();
  }
}
