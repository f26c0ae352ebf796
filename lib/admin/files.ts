/**
 * The page's files, embedded by `deno compile`.
 *
 * @module
 */
import { contentType } from "./media.ts";

/** Nothing of anybody else's, and nothing that was not in a file of ours. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
  "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/** What every answer of the listener says. */
export const SAFE_HEADERS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
} as const;

const FOLDER = new URL("./page/", import.meta.url);

/** The file of the page at `path`; undefined when there is none. */
export async function pageFile(path: string): Promise<Response | undefined> {
  const name = path === "/" ? "index.html" : path.slice(1);
  // One folder deep at most, and nothing that leads out of it.
  if (!/^([a-z0-9_-]+\/)?[a-z0-9_-]+\.(html|js|css|svg|json)$/.test(name)) return undefined;
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await Deno.readFile(new URL(name, FOLDER));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const headers = {
    "content-type": contentType(name),
    "content-security-policy": POLICY,
    "cache-control": "no-cache",
    ...SAFE_HEADERS,
  };
  return new Response(bytes, { headers });
}
