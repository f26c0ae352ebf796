/**
 * Serves the page's files, which `deno compile` embeds.
 *
 * @module
 */
import { contentType } from "./media.ts";

/** Allows only resources of this origin, and no inline scripts or styles. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
  "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/** Headers of every answer of the operator's listener. */
export const SAFE_HEADERS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
} as const;

const FOLDER = new URL("./page/", import.meta.url);

/** Returns the page's file at `path`, or undefined if there is none. */
export async function pageFile(path: string): Promise<Response | undefined> {
  const name = path === "/" ? "index.html" : path.slice(1);
  // Allow at most one folder level, and no path that leaves the folder.
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
