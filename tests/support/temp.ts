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
  for (let tries = 1;; tries++) {
    try {
      return await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      // Something that was closed without grace finished a file in it just now.
      if (tries === 50 || !/not empty/i.test(String(error))) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** What {@linkcode freePort} has returned: whoever asked may not listen there yet. */
const givenPorts = new Set<number>();

/** A port of `hostname` that nothing listens on now, another each time. */
export function freePort(hostname = "127.0.0.1"): number {
  while (true) {
    const listener = Deno.listen({ hostname, port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    listener.close();
    if (givenPorts.has(port)) continue;
    givenPorts.add(port);
    return port;
  }
}
