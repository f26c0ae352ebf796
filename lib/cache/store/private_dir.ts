/**
 * A cache directory as it is found: what earlier versions or other hands left open to others is closed.
 *
 * @module
 */
import { join } from "@std/path";
import { cacheLog } from "../../telemetry/log.ts";
import { makePrivate, PRIVATE_FOLDER } from "../../util/private_files.ts";

/** What the cache itself makes in its directory. */
const OWN =
  /^(?:blobs|fills|quarantine|(?:index|lock)\.sqlite(?:-wal|-shm|\.damaged)?|index\.incomplete|history\.json(?:\.part)?)$/;

/** What file systems put at their top. */
const MOUNTED: ReadonlySet<string> = new Set(["lost+found"]);

/**
 * Makes `dir` where it is missing, and takes everybody else's rights from what is the cache's own in it: from `dir` too,
 * unless it holds other things. Says so once. Throws what the disk throws when `dir` cannot be made.
 */
export function openPrivateDir(dir: string): void {
  Deno.mkdirSync(dir, { recursive: true, mode: PRIVATE_FOLDER });
  const names = namesIn(dir);
  const own = names.filter((name) => OWN.test(name));
  const isShared = names.some((name) => !OWN.test(name) && !MOUNTED.has(name));
  const blobs = join(dir, "blobs");
  const { tightened, open } = makePrivate([
    ...isShared ? [] : [dir],
    ...own.map((name) => join(dir, name)),
    ...namesIn(blobs).map((algorithm) => join(blobs, algorithm)),
  ]);
  if (tightened.length > 0) {
    cacheLog.info("Others could read the cache: closed {paths}", { paths: tightened.join(" ") });
  }
  if (open.length > 0) {
    cacheLog.warn("Others may read the cache, and its owner is somebody else: {paths}", {
      paths: open.join(" "),
    });
  }
}

/** The names in a folder; none where it cannot be read or is none. */
function namesIn(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].map(({ name }) => name);
  } catch {
    return []; // opening the cache says what is wrong with it
  }
}
